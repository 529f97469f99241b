/* What a permission that is missing means. */
#include "core/access.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

static bool is_denied(const char *path, int mode)
{
	return faccessat(AT_FDCWD, path, mode, AT_EACCESS) < 0 && errno == EACCES;
}

/* `may_not`: what; `right`: the letter of the permission for it. */
static int fail_at(int code, const char *part, const char *may_not, const char *right)
{
	struct stat info;

	if (stat(part, &info) < 0)
		return segue_fail_errno(code, "%s", part);
	return segue_fail(code,
		"%s belongs to uid %u, mode %04o: this process (uid %u) may not %s: the permission "
		"'%s' is missing (chmod gives it; or be that user)",
		part, (unsigned)info.st_uid, (unsigned)info.st_mode & 07777, (unsigned)geteuid(),
		may_not, right);
}

int segue_fail_access(int code, const char *path)
{
	char part[PATH_MAX], above[PATH_MAX] = {*path == '/' ? '/' : '.'};

	for (size_t size = 1; path[0] && path[size - 1] && size < sizeof(part); size++) {
		bool last = path[size] == '\0';
		if (!last && path[size] != '/')
			continue;
		memcpy(part, path, size);
		part[size] = '\0';
		if (faccessat(AT_FDCWD, part, F_OK, AT_EACCESS) < 0 && errno == ENOENT)
			return fail_at(code, above, "make files in it", "w");
		if (!last && is_denied(part, X_OK))
			return fail_at(code, part, "enter it", "x");
		memcpy(above, part, size + 1);
	}
	if (is_denied(path, W_OK))
		return fail_at(code, path, "write to it", "w");
	return segue_fail(code, "%s: %s", path, strerror(EACCES));
}
