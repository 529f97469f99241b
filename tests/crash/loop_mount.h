/*
 * A file system of its own on a loop device, whose power can be cut: root only.
 *
 * Nothing is left behind however the process ends: the mount lies in a mount namespace of this
 * process, the loop device goes with the mount, and its file has no name.
 */
#ifndef SEGUE_TEST_LOOP_MOUNT_H
#define SEGUE_TEST_LOOP_MOUNT_H

#include <stddef.h>

struct loop_mount {
	const char *type, *options; /* "ext4" or "xfs"; of mount, may be "" */
	const char *point;          /* an existing directory */
	int device;                 /* the loop device, open as long as it is ours; -1: none */
	char device_path[32];
};

/*
 * Gives this process a mount namespace of its own. 0, or -1: a machine without what is needed; why
 * is then in `reason`.
 */
int loop_mount_prepare(char *reason, size_t size);
/*
 * Makes an empty file system on a new device (its sparse file under `dir`, unlinked) and mounts it.
 * 0, or -1 with `reason`.
 */
int loop_mount_make(struct loop_mount *mount, const char *dir, char *reason, size_t size);
/* All that was not synced is gone, and nothing is written any more; dies on an error. */
void loop_mount_cut(const struct loop_mount *mount);
/* Unmounts and mounts again, as a machine does that starts: the journal is replayed. Dies on an error. */
void loop_mount_again(const struct loop_mount *mount);
/* Unmounts; the device is gone. A zeroed device (-1) is fine. */
void loop_mount_remove(struct loop_mount *mount);

#endif
