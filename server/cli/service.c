/* What `segue serve` is told beside its directory. */
#include "cli/service.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cli/ask.h"
#include "core/error.h"
#include "os/notify.h"

enum { DESCRIPTORS_MAX = 65536 };

/* ---- Lists ---- */

/* A list from the command line, or else from a variable, as copies. */
struct texts {
	char **text;
	size_t count;
};

static void finish_texts(struct texts *texts)
{
	for (size_t i = 0; i < texts->count; i++)
		free(texts->text[i]);
	free(texts->text);
	*texts = (struct texts){0};
}

static int add_text(struct texts *texts, const char *text, size_t size)
{
	char **grown = realloc(texts->text, (texts->count + 1) * sizeof(*grown));

	if (grown)
		texts->text = grown;
	if (!grown || !(grown[texts->count] = strndup(text, size)))
		return segue_fail(SEGUE_ENOMEM, "no memory for a list");
	texts->count++;
	return 0;
}

static int get_texts(const struct segue_cli_list *given, const char *variable, struct texts *out)
{
	const char *at = getenv(variable);
	int rc = 0;

	*out = (struct texts){0};
	for (size_t i = 0; !rc && i < given->count; i++)
		rc = add_text(out, given->item[i], strlen(given->item[i]));
	for (; !rc && given->count == 0 && at && *at; at += *at == ':') {
		size_t size = strcspn(at, ":");
		rc = size ? add_text(out, at, size) : 0;
		at += size;
	}
	if (rc)
		finish_texts(out);
	return rc;
}

/* ---- Users and groups ---- */

static bool is_number(const char *text, uint32_t *out)
{
	char *end;

	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value >= UINT32_MAX)
		return false;
	*out = (uint32_t)value;
	return true;
}

static int find_users(struct segue_cli_service *service, const struct texts *names)
{
	service->rules.users = calloc(names->count + 1, sizeof(*service->rules.users));
	if (!service->rules.users)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list");
	for (size_t i = 0; i < names->count; i++) {
		const struct passwd *user;
		uint32_t uid;
		if (!is_number(names->text[i], &uid)) {
			user = getpwnam(names->text[i]);
			if (!user)
				return segue_fail(SEGUE_EINVAL,
					"--allow-user: there is no user '%s'", names->text[i]);
			uid = user->pw_uid;
		}
		service->rules.users[service->rules.user_count++] = uid;
	}
	return 0;
}

static int find_groups(struct segue_cli_service *service, const struct texts *names)
{
	service->rules.groups = calloc(names->count + 1, sizeof(*service->rules.groups));
	if (!service->rules.groups)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list");
	for (size_t i = 0; i < names->count; i++) {
		const struct group *group;
		uint32_t gid;
		if (!is_number(names->text[i], &gid)) {
			group = getgrnam(names->text[i]);
			if (!group)
				return segue_fail(SEGUE_EINVAL,
					"--allow-group: there is no group '%s'", names->text[i]);
			gid = group->gr_gid;
		}
		service->rules.groups[service->rules.group_count++] = gid;
	}
	return 0;
}

static int set_admission(struct segue_cli_service *service, const struct segue_cli_options *options)
{
	struct texts names;

	int rc = get_texts(&options->users, "SEGUE_ALLOW_USER", &names);
	if (rc)
		return rc;
	rc = find_users(service, &names);
	finish_texts(&names);
	if (!rc)
		rc = get_texts(&options->groups, "SEGUE_ALLOW_GROUP", &names);
	if (rc)
		return rc;
	rc = find_groups(service, &names);
	finish_texts(&names);
	if (!rc && service->rules.user_count + service->rules.group_count > 0 &&
		!service->rules.roots)
		rc = segue_fail(SEGUE_EINVAL,
			"--allow-user and --allow-group need --root: without it other users could "
			"have the server read any file that it may read itself");
	return rc;
}

/* ---- The rest ---- */

/* The soft limit is small for the sake of select(), which is not used here. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	rlim_t wanted = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
	if (limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = wanted;
	setrlimit(RLIMIT_NOFILE, &limit); /* if it may not, the soft one it is */
}

static int set_limits(struct segue_cli_service *service, const struct segue_cli_options *options)
{
	raise_descriptors();
	int rc = segue_limits_init(&service->rules.limits);
	for (unsigned i = 0; !rc && i < SEGUE_LIMIT_COUNT; i++) {
		if (options->limits[i])
			rc = segue_limits_set(&service->rules.limits, i, options->limits[i]);
	}
	return rc;
}

static int set_roots(struct segue_cli_service *service, const struct segue_cli_options *options)
{
	struct texts dirs;

	int rc = get_texts(&options->roots, "SEGUE_ROOT", &dirs);
	if (!rc && dirs.count)
		rc = segue_roots_create(dirs.text, dirs.count, &service->rules.roots);
	finish_texts(&dirs);
	return rc;
}

int segue_cli_service_init(
	struct segue_cli_service *service, const struct segue_cli_options *options)
{
	int rc;

	*service = (struct segue_cli_service){.listen_fd = -1};
	/* Nobody has said that the server of some client of theirs should let others in. */
	if (options->embedded) {
		unsetenv("SEGUE_ALLOW_USER");
		unsetenv("SEGUE_ALLOW_GROUP");
	}
	if ((rc = set_limits(service, options)) || (rc = set_roots(service, options)))
		return rc;
	return set_admission(service, options);
}

int segue_cli_service_socket(
	struct segue_cli_service *service, const struct segue_cli_options *options, char **path)
{
	struct sockaddr_un address = {0};
	socklen_t size = sizeof(address) - 1;

	if (options->embedded) {
		segue_notify_ignore();
		return 0;
	}
	segue_notify_init();
	int rc = segue_notify_socket(&service->listen_fd);
	if (rc || service->listen_fd < 0)
		return rc;
	if (getsockname(service->listen_fd, (struct sockaddr *)&address, &size) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot use the service manager's socket");
	char *given = segue_cli_absolute(address.sun_path);
	if (!given)
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	char *asked = options->socket ? segue_cli_absolute(options->socket) : NULL;
	if (asked && strcmp(asked, given) != 0)
		rc = segue_fail(SEGUE_EINVAL,
			"the service manager passes the socket %s, and --socket says %s: make them "
			"the same",
			given, asked);
	free(asked);
	free(*path);
	*path = given;
	return rc;
}

void segue_cli_service_apply(const struct segue_cli_service *service, struct segue_options *options)
{
	options->listen_fd = service->listen_fd;
	options->rules = &service->rules;
}

void segue_cli_service_finish(struct segue_cli_service *service)
{
	segue_roots_destroy(service->rules.roots);
	free(service->rules.users);
	free(service->rules.groups);
}
