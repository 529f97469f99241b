/* A file system whose power can be cut: loop_mount.h has the contract. */
#include "loop_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/loop.h>

#include "session.h"

/* The same for ext4 and XFS; without a flush of the log. */
#define GOING_DOWN  _IOR('X', 125, uint32_t)
#define NO_LOGFLUSH 2
#define IMAGE_SIZE  (INT64_C(512) << 20) /* XFS wants 300 MiB; sparse */

extern char **environ;

static int fail(char *reason, size_t size, const char *what)
{
	snprintf(reason, size, "%s: %s", what, strerror(errno));
	return -1;
}

int loop_mount_prepare(char *reason, size_t size)
{
	if (access("/dev/loop-control", R_OK | W_OK) < 0)
		return fail(reason, size, "/dev/loop-control");
	if (unshare(CLONE_NEWNS) < 0)
		return fail(reason, size, "a mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(reason, size, "a private mount namespace");
	return 0;
}

static int make_image(const char *dir)
{
	char path[SEGUE_TMPDIR_MAX + 8];

	snprintf(path, sizeof(path), "%s/image", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	unlink(path);
	if (ftruncate(fd, IMAGE_SIZE) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* A free loop device over `image`, which goes when nobody uses it any more. */
static int configure(struct loop_mount *mount, int image)
{
	struct loop_config config = {
		.fd = (uint32_t)image, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	for (int tries = 0; control >= 0 && tries < 50; tries++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			break;
		snprintf(mount->device_path, sizeof(mount->device_path), "/dev/loop%d", number);
		mount->device = open(mount->device_path, O_RDWR | O_CLOEXEC);
		if (mount->device >= 0 && ioctl(mount->device, LOOP_CONFIGURE, &config) == 0) {
			close(control);
			return 0;
		}
		int error = errno;
		if (mount->device >= 0)
			close(mount->device);
		mount->device = -1;
		errno = error;
		if (error != EBUSY) /* somebody else was quicker */
			break;
	}
	int error = errno;
	if (control >= 0)
		close(control);
	errno = error;
	return -1;
}

static int make_file_system(const struct loop_mount *mount, char *reason, size_t size)
{
	char program[32], path[512];
	char *quiet = "-q", *force = strcmp(mount->type, "xfs") == 0 ? "-f" : "-F";
	char *arguments[] = {program, quiet, force, (char *)(uintptr_t)mount->device_path, NULL};
	const char *searched = getenv("PATH");
	int status;
	pid_t pid;

	snprintf(program, sizeof(program), "mkfs.%s", mount->type);
	snprintf(path, sizeof(path), "%s:/usr/sbin:/sbin", searched ? searched : "/usr/bin:/bin");
	setenv("PATH", path, 1);
	errno = posix_spawnp(&pid, program, NULL, NULL, arguments, environ);
	if (errno)
		return fail(reason, size, program);
	if (waitpid(pid, &status, 0) != pid || status != 0) {
		snprintf(reason, size, "%s ended with status %#x", program, (unsigned)status);
		return -1;
	}
	return 0;
}

static int attach(const struct loop_mount *self)
{
	return mount(self->device_path, self->point, self->type, 0, self->options);
}

int loop_mount_make(struct loop_mount *mount, const char *dir, char *reason, size_t size)
{
	int image = make_image(dir);

	mount->device = -1;
	if (image < 0)
		return fail(reason, size, "an image");
	int rc = configure(mount, image);
	if (rc < 0)
		fail(reason, size, "a loop device");
	close(image);
	if (rc == 0)
		rc = make_file_system(mount, reason, size);
	if (rc == 0 && attach(mount) < 0)
		rc = fail(reason, size, "mount");
	if (rc < 0 && mount->device >= 0) {
		close(mount->device);
		mount->device = -1;
	}
	return rc;
}

void loop_mount_cut(const struct loop_mount *mount)
{
	uint32_t how = NO_LOGFLUSH;
	int fd = open(mount->point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, GOING_DOWN, &how) < 0)
		crash_die("%s cannot be shut down: %s", mount->type, strerror(errno));
	close(fd);
}

static void detach(const struct loop_mount *mount)
{
	for (int tries = 0; umount(mount->point) < 0; tries++) {
		if (errno != EBUSY || tries > 2000)
			crash_die("umount of %s: %s", mount->type, strerror(errno));
		usleep(5000);
	}
}

void loop_mount_again(const struct loop_mount *mount)
{
	detach(mount);
	if (attach(mount) < 0)
		crash_die(
			"%s cannot be mounted after a power cut: %s", mount->type, strerror(errno));
}

void loop_mount_remove(struct loop_mount *mount)
{
	if (mount->device < 0)
		return;
	detach(mount);
	close(mount->device);
	mount->device = -1;
}
