/* File systems: an allow-list, since a new one is more likely to be shared than to be a disk. */
#include "store/file_system.h"

#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "core/error.h"
#include "segue/segue.h"

/*
 * Numbers without a name in linux/magic.h (of some releases) are those of the kernel's, or their
 * own, sources. overlay keeps what is written in a directory that may not lie on NFS. What is
 * stacked on another file system (ecryptfs), or on a disk of several machines (GFS2, OCFS2), is not
 * known to be local.
 */
static const struct {
	uint32_t type;
	enum segue_medium medium;
	const char *name;
} kinds[] = {
	{EXT4_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "ext2/3/4"},
	{XFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "XFS"},
	{BTRFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "btrfs"},
	{F2FS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "F2FS"},
	{NILFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "NILFS2"},
	{REISERFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "ReiserFS"},
	{OVERLAYFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "overlay"},
	{MSDOS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "FAT"},
	{ISOFS_SUPER_MAGIC, SEGUE_MEDIUM_DISK, "ISO 9660"},
	{SQUASHFS_MAGIC, SEGUE_MEDIUM_DISK, "squashfs"},
	{0xe0f5e1e2, SEGUE_MEDIUM_DISK, "EROFS"},
	{0xca451a4e, SEGUE_MEDIUM_DISK, "bcachefs"},
	{0x2fc12fc1, SEGUE_MEDIUM_DISK, "ZFS"},
	{0x3153464a, SEGUE_MEDIUM_DISK, "JFS"},
	{0x2011bab0, SEGUE_MEDIUM_DISK, "exFAT"},
	{0x7366746e, SEGUE_MEDIUM_DISK, "NTFS"},
	{0x24051905, SEGUE_MEDIUM_DISK, "UBIFS"},
	{TMPFS_MAGIC, SEGUE_MEDIUM_MEMORY, "tmpfs"},
	{RAMFS_MAGIC, SEGUE_MEDIUM_MEMORY, "ramfs"},
	{NFS_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "NFS"},
	{SMB_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "SMB"},
	{CIFS_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "SMB"},
	{SMB2_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "SMB"},
	{V9FS_MAGIC, SEGUE_MEDIUM_SHARED, "9p"},
	{AFS_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "AFS"},
	{AFS_FS_MAGIC, SEGUE_MEDIUM_SHARED, "AFS"},
	{CODA_SUPER_MAGIC, SEGUE_MEDIUM_SHARED, "Coda"},
	{0x00c36400, SEGUE_MEDIUM_SHARED, "CephFS"},
	{0x65735546, SEGUE_MEDIUM_SHARED, "FUSE (sshfs, s3fs, GlusterFS, virtiofs, ...)"},
	{0x7461636f, SEGUE_MEDIUM_SHARED, "OCFS2"},
	{0x01161970, SEGUE_MEDIUM_SHARED, "GFS2"},
	{0x0bd00bd0, SEGUE_MEDIUM_SHARED, "Lustre"},
	{0x47504653, SEGUE_MEDIUM_SHARED, "GPFS"},
	{0x19830326, SEGUE_MEDIUM_SHARED, "BeeGFS"},
	{0xaad7aaea, SEGUE_MEDIUM_SHARED, "PanFS"},
	{0x20030528, SEGUE_MEDIUM_SHARED, "OrangeFS"},
	{0xbacbacbc, SEGUE_MEDIUM_SHARED, "a folder of the host (VMware)"},
	{0x786f4256, SEGUE_MEDIUM_SHARED, "a folder of the host (VirtualBox)"},
	{0x7c7c6673, SEGUE_MEDIUM_SHARED, "a folder of the host (Parallels)"},
};

int segue_file_system_get(int fd, struct segue_file_system *out)
{
	struct statfs info;

	if (fstatfs(fd, &info) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "the kind of its file system cannot be told");
	out->type = (uint32_t)info.f_type;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].type == out->type) {
			out->medium = kinds[i].medium;
			snprintf(out->name, sizeof(out->name), "%s", kinds[i].name);
			return 0;
		}
	}
	out->medium = SEGUE_MEDIUM_UNKNOWN;
	snprintf(out->name, sizeof(out->name), "an unknown one (type 0x%x)", out->type);
	return 0;
}

bool segue_file_system_is_local(const struct segue_file_system *system)
{
	const char *assumed = getenv(SEGUE_ASSUME_LOCAL);

	if (system->medium == SEGUE_MEDIUM_DISK || system->medium == SEGUE_MEDIUM_MEMORY)
		return true;
	return assumed && strcmp(assumed, "1") == 0;
}

int segue_file_system_check(int fd, const char *dir)
{
	struct segue_file_system system;

	int rc = segue_file_system_get(fd, &system);
	if (rc)
		return segue_fail_within(rc, "%s", dir);
	if (segue_file_system_is_local(&system))
		return 0;
	return segue_fail(SEGUE_ESYSTEM,
		"%s may be shared with other machines: its file system is %s. Two machines that "
		"open one store destroy it: " SEGUE_FILE_SYSTEM_ADVICE,
		dir, system.name);
}
