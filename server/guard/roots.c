/* Files that clients name: opened beneath roots, for their readers. */
#include "guard/roots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/error.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

enum { MAY_READ = 4, MAY_SEARCH = 1 };

/* Keeps errno; -1. */
static int close_quietly(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

/* ---- Readers ---- */

static int get_groups(int socket, struct segue_reader *reader)
{
	socklen_t size = 0;

	/* The first question is how many. */
	if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE)
		return 0; /* none, or a kernel that does not tell: the primary group alone counts */
	reader->groups = malloc(size);
	if (!reader->groups)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of groups");
	if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, reader->groups, &size) == 0)
		reader->group_count = size / sizeof(gid_t);
	return 0;
}

int segue_reader_of_socket(int socket, struct segue_reader *out)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	*out = (struct segue_reader){0};
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot learn who has connected");
	out->uid = peer.uid;
	out->gid = peer.gid;
	return get_groups(socket, out);
}

void segue_reader_finish(struct segue_reader *reader)
{
	free(reader->groups);
	*reader = (struct segue_reader){0};
}

bool segue_reader_in_group(const struct segue_reader *reader, gid_t group)
{
	if (reader->gid == group)
		return true;
	for (size_t i = 0; i < reader->group_count; i++) {
		if (reader->groups[i] == group)
			return true;
	}
	return false;
}

bool segue_reader_trusted(const struct segue_reader *reader)
{
	return reader->uid == 0 || reader->uid == geteuid();
}

/* Also where that cannot be told. */
static bool has_acl(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return getxattr(path, "system.posix_acl_access", NULL, 0) >= 0 ||
	       (errno != ENODATA && errno != EOPNOTSUPP);
}

/* As the kernel decides: the first class that fits is the one that counts. */
static bool may(const struct segue_reader *reader, int fd, const struct stat *info, unsigned what)
{
	if (!reader || segue_reader_trusted(reader))
		return true;
	if (info->st_uid == reader->uid)
		return info->st_mode >> 6 & what;
	/* It may shut out anybody, and is not read. */
	if (has_acl(fd))
		return false;
	if (segue_reader_in_group(reader, info->st_gid))
		return info->st_mode >> 3 & what;
	return info->st_mode & what;
}

/* ---- Roots ---- */

struct root {
	char *name, *real; /* as given, and without symbolic links */
	int fd;
};

struct segue_roots {
	size_t count;
	char *list; /* for messages */
	struct root *root;
};

static int open_beneath(int at, const char *name, uint64_t flags)
{
	const struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	long fd;

	do
		fd = syscall(SYS_openat2, at, name, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* again: a rename raced with it */
	/* Of a link where a directory was wanted the kernel says just that it is none. */
	struct stat info;
	if (fd < 0 && errno == ENOTDIR)
		errno = fstatat(at, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode)
				? ELOOP
				: ENOTDIR;
	return (int)fd;
}

static int open_root(const char *dir, struct root *root)
{
	if (*dir != '/')
		return segue_fail(
			SEGUE_EINVAL, "the root '%s' is not absolute: give its full path", dir);
	root->name = strdup(dir);
	root->real = realpath(dir, NULL);
	root->fd = root->real ? open(root->real, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (!root->name)
		return segue_fail(SEGUE_ENOMEM, "no memory for a root");
	if (root->fd < 0)
		return segue_fail_errno(SEGUE_EINVAL, "the root %s cannot be opened", dir);
	for (size_t size = strlen(root->name); size > 1 && root->name[size - 1] == '/'; size--)
		root->name[size - 1] = '\0';
	/* Without it a check and an open would be two things: then rather no server. */
	int probe = open_beneath(root->fd, ".", O_PATH | O_DIRECTORY);
	if (probe < 0)
		return segue_fail_errno(SEGUE_ESYSTEM,
			"the root %s: openat2 does not work here (Linux 5.6 has it; a filter of "
			"system calls must let it through), and without it there are no roots",
			dir);
	close(probe);
	return 0;
}

static char *list_roots(const struct segue_roots *roots)
{
	size_t size = 1;

	for (size_t i = 0; i < roots->count; i++)
		size += strlen(roots->root[i].name) + 2;
	char *list = malloc(size), *to = list;
	for (size_t i = 0; list && i < roots->count; i++)
		to += sprintf(to, "%s%s", i ? ", " : "", roots->root[i].name);
	return list;
}

int segue_roots_add(struct segue_roots *roots, const char *dir)
{
	struct root *more = reallocarray(roots->root, roots->count + 1, sizeof(*more));

	if (!more)
		return segue_fail(SEGUE_ENOMEM, "no memory for the roots");
	roots->root = more;
	more[roots->count] = (struct root){.fd = -1};
	return open_root(dir, &more[roots->count++]);
}

int segue_roots_create(char *const *dirs, size_t count, struct segue_roots **out)
{
	struct segue_roots *roots = calloc(1, sizeof(*roots));
	int rc = 0;

	if (!roots)
		return segue_fail(SEGUE_ENOMEM, "no memory for the roots");
	for (size_t i = 0; !rc && i < count; i++)
		rc = segue_roots_add(roots, dirs[i]);
	if (!rc && !(roots->list = list_roots(roots)))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for the roots");
	if (rc) {
		segue_roots_destroy(roots);
		return rc;
	}
	*out = roots;
	return 0;
}

void segue_roots_destroy(struct segue_roots *roots)
{
	if (!roots)
		return;
	for (size_t i = 0; i < roots->count; i++) {
		free(roots->root[i].name);
		free(roots->root[i].real);
		if (roots->root[i].fd >= 0)
			close(roots->root[i].fd);
	}
	free(roots->root);
	free(roots->list);
	free(roots);
}

/* What of `path` lies below `dir`; NULL: it does not. */
static const char *below(const char *path, const char *dir)
{
	size_t size = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

	if (strncmp(path, dir, size) != 0 || (path[size] != '/' && path[size] != '\0'))
		return NULL;
	return path + size;
}

/* The innermost root that the path is in, and the rest of the path. */
static const struct root *find_root(
	const struct segue_roots *roots, const char *path, const char **rest)
{
	const struct root *best = NULL;

	for (size_t i = 0; i < roots->count; i++) {
		const struct root *root = &roots->root[i];
		const char *found = below(path, root->name);
		if (!found)
			found = below(path, root->real);
		if (found && (!best || strlen(found) < strlen(*rest))) {
			best = root;
			*rest = found;
		}
	}
	return best;
}

/* ---- Walking ---- */

/* The next component into `name`: 1, 0 at the end, -1 and errno. */
static int next_component(const char **path, char name[NAME_MAX + 1])
{
	for (;;) {
		*path += strspn(*path, "/");
		size_t size = strcspn(*path, "/");
		if (size == 0)
			return 0;
		if (size > NAME_MAX) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(name, *path, size);
		name[size] = '\0';
		*path += size;
		if (strcmp(name, "..") == 0) {
			errno = EXDEV;
			return -1;
		}
		if (strcmp(name, ".") != 0)
			return 1;
	}
}

static bool may_search(const struct segue_reader *reader, int fd)
{
	struct stat info;

	if (fstat(fd, &info) == 0 && may(reader, fd, &info, MAY_SEARCH))
		return true;
	errno = EACCES;
	return false;
}

/*
 * Goes down to the directory of the last component: its fd, and that component's name ("." for the
 * root itself). -1 and errno; EXDEV: outside of all roots.
 */
static int descend(const struct segue_opener *opener, const char *path, char name[NAME_MAX + 1])
{
	const struct root *root = find_root(opener->roots, path, &path);
	char next[NAME_MAX + 1];
	int more, fd;

	if (!root) {
		errno = EXDEV;
		return -1;
	}
	fd = fcntl(root->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	strcpy(name, ".");
	more = next_component(&path, next);
	for (bool first = true; more > 0; first = false) {
		if (!first) {
			int deeper = open_beneath(fd, name, O_PATH | O_DIRECTORY);
			close_quietly(fd);
			fd = deeper;
		}
		if (fd < 0)
			return -1;
		if (!may_search(opener->reader, fd))
			return close_quietly(fd);
		strcpy(name, next);
		more = next_component(&path, next);
	}
	return more < 0 ? close_quietly(fd) : fd;
}

/* An fd of the thing itself; what it is goes to *info. */
static int open_at_place(
	const struct segue_opener *opener, const char *path, uint64_t flags, struct stat *info)
{
	char name[NAME_MAX + 1];
	int at = descend(opener, path, name);

	if (at < 0)
		return -1;
	int fd = open_beneath(at, name, flags);
	close_quietly(at);
	return fd >= 0 && fstat(fd, info) < 0 ? close_quietly(fd) : fd;
}

static bool has_roots(const struct segue_opener *opener)
{
	return opener && opener->roots;
}

int segue_opener_look(const struct segue_opener *opener, const char *path, struct stat *info)
{
	if (!has_roots(opener))
		return lstat(path, info);
	int fd = open_at_place(opener, path, O_PATH, info);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

/* ---- Opening ---- */

static int fail_open(const struct segue_opener *opener, const char *path)
{
	if (!has_roots(opener))
		return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be opened", path);
	if (errno == EXDEV)
		return segue_fail(SEGUE_ESOURCE,
			"%s: is not beneath a directory that this server reads from (--root): %s; "
			"paths are absolute and have no '..'",
			path, opener->roots->list);
	if (errno == ELOOP)
		return segue_fail(SEGUE_ESOURCE,
			"%s: a symbolic link is on the way, and beneath its roots (--root) this "
			"server follows none: give the path without it",
			path);
	if (errno == EACCES)
		return segue_fail(SEGUE_ESOURCE,
			"%s: cannot be read by uid %u, or not by the server (uid %u); what has an "
			"ACL is read for its owner alone",
			path, (unsigned)opener->reader->uid, (unsigned)geteuid());
	return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be opened", path);
}

static int fail_kind(const char *path, mode_t mode)
{
	return segue_fail(SEGUE_ESOURCE,
		S_ISDIR(mode) ? "%s: is a directory; name the files in it, as by '/*'"
			      : "%s: is not a plain file",
		path);
}

/* Looked at before it is opened: opening a device may already do something. */
static int open_file(const struct segue_opener *opener, const char *path, struct stat *info)
{
	/* NONBLOCK: a FIFO that has come in between must not hold the server. */
	const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	if (has_roots(opener) ? segue_opener_look(opener, path, info) : stat(path, info))
		return fail_open(opener, path);
	if (has_roots(opener) && S_ISLNK(info->st_mode)) {
		errno = ELOOP;
		return fail_open(opener, path);
	}
	if (!S_ISREG(info->st_mode))
		return fail_kind(path, info->st_mode);
	int fd = has_roots(opener) ? open_at_place(opener, path, (uint64_t)flags, info)
				   : open(path, flags);
	if (fd < 0)
		return fail_open(opener, path);
	return fd;
}

int segue_opener_open(const struct segue_opener *opener, const char *path, struct stat *info)
{
	int rc, fd = open_file(opener, path, info);

	if (fd < 0)
		return fd;
	if (fstat(fd, info) < 0) {
		rc = segue_fail_errno(SEGUE_ESOURCE, "%s", path);
	} else if (!S_ISREG(info->st_mode)) {
		rc = fail_kind(path, info->st_mode);
	} else if (has_roots(opener) && !may(opener->reader, fd, info, MAY_READ)) {
		errno = EACCES;
		rc = fail_open(opener, path);
	} else {
		return fd;
	}
	close(fd);
	return rc;
}

int segue_opener_exists(const struct segue_opener *opener, const char *path)
{
	struct stat info;

	if ((has_roots(opener) ? segue_opener_look(opener, path, &info) : stat(path, &info)) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return has_roots(opener) ? fail_open(opener, path)
				 : segue_fail_errno(SEGUE_ESOURCE, "%s", path);
}

void *segue_opener_list(const struct segue_opener *opener, const char *path)
{
	struct stat info;

	if (!has_roots(opener))
		return opendir(path);
	int fd = open_at_place(opener, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, &info);
	if (fd < 0)
		return NULL;
	DIR *list = NULL;
	if (may(opener->reader, fd, &info, MAY_READ))
		list = fdopendir(fd);
	else
		errno = EACCES;
	if (!list)
		close_quietly(fd);
	return list;
}
