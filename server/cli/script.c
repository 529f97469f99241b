/* What a process runs. */
#include "cli/script.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { COMMAND_LINE = 4096 };

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* The argument behind this one; NULL: it is the last that is whole. */
static const char *next_of(const char *argument, const char *end)
{
	argument += strlen(argument) + 1;
	return argument < end && memchr(argument, '\0', (size_t)(end - argument)) ? argument : NULL;
}

char *segue_script_of(const char *command_line, size_t size, const char *program)
{
	const char *end = command_line + size, *argument = command_line;

	if (!size || !memchr(command_line, '\0', size) ||
		strcmp(base_of(command_line), program) != 0 || strncmp(program, "python", 6) != 0)
		return NULL;
	while ((argument = next_of(argument, end)) != NULL) {
		if (*argument != '-')
			return strdup(base_of(argument));
		if (strcmp(argument, "-m") == 0) {
			argument = next_of(argument, end);
			return argument ? strdup(argument) : NULL;
		}
		if (strcmp(argument, "-c") == 0)
			return NULL;
		if (strcmp(argument, "-W") == 0 || strcmp(argument, "-X") == 0)
			argument = next_of(argument, end);
		if (!argument)
			break;
	}
	return NULL;
}

/* In one go: it is not there a moment later, perhaps. */
static char *look_up(int64_t pid, const char *program)
{
	char path[64], text[COMMAND_LINE];

	snprintf(path, sizeof(path), "/proc/%jd/cmdline", (intmax_t)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	ssize_t size = read(fd, text, sizeof(text));
	close(fd);
	return size > 0 ? segue_script_of(text, (size_t)size, program) : NULL;
}

void segue_script_find(struct segue_look *look)
{
	for (size_t i = 0; i < look->lane_count; i++) {
		struct segue_look_lane *lane = &look->lane[i];
		char *script = lane->holder > 0 ? look_up(lane->holder, lane->program) : NULL;

		if (!script)
			continue;
		free(lane->script);
		lane->script = segue_cli_printable(script, strlen(script));
		free(script);
	}
}
