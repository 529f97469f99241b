/* A program in Python, as text. */
#include "cli/python.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/utf8.h"

#define PATHS_MOST 16 /* that are named one by one */

void segue_python_add(struct segue_python *text, const char *format, ...)
{
	va_list arguments;
	char *more;
	int size;

	va_start(arguments, format);
	size = vasprintf(&more, format, arguments);
	va_end(arguments);
	segue_cli_need(size < 0 ? NULL : more);
	text->bytes = segue_cli_need(realloc(text->bytes, text->size + (size_t)size + 1));
	memcpy(text->bytes + text->size, more, (size_t)size + 1);
	text->size += (size_t)size;
	free(more);
}

void segue_python_add_literal(struct segue_python *text, const char *bytes, size_t size)
{
	segue_python_add(text, "\"");
	while (size > 0) {
		size_t length = segue_utf8_next(bytes, size), step = length ? length : 1;

		if (length == 0)
			segue_python_add(text, "\\udc%02x", (unsigned char)*bytes);
		else if (segue_cli_is_control(bytes, length))
			segue_python_add(text, "\\x%02x", (unsigned char)bytes[length - 1]);
		else if (*bytes == '"' || *bytes == '\\')
			segue_python_add(text, "\\%c", *bytes);
		else
			segue_python_add(text, "%.*s", (int)length, bytes);
		bytes += step;
		size -= step;
	}
	segue_python_add(text, "\"");
}

static size_t directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

static const char *ending_of(const char *path)
{
	const char *dot = strrchr(path + directory_of(path), '.');

	return dot ? dot : "";
}

bool segue_python_is_pattern(const char *const path[], size_t count)
{
	const char *first = path[0];
	size_t directory = directory_of(first);

	if (count <= PATHS_MOST || strpbrk(first, "*?[") || !*ending_of(first))
		return false;
	for (size_t i = 1; i < count; i++)
		if (directory_of(path[i]) != directory || memcmp(path[i], first, directory) != 0 ||
			strcmp(ending_of(path[i]), ending_of(first)) != 0)
			return false;
	return true;
}

void segue_python_add_paths(struct segue_python *text, const char *const path[], size_t count)
{
	if (segue_python_is_pattern(path, count)) {
		struct segue_python pattern = {0};

		segue_python_add(&pattern, "%.*s*%s", (int)directory_of(path[0]), path[0],
			ending_of(path[0]));
		segue_python_add_literal(text, pattern.bytes, pattern.size);
		free(pattern.bytes);
		return;
	}
	segue_python_add(text, "[");
	for (size_t i = 0; i < count; i++) {
		segue_python_add(text, "%s", i ? ", " : "");
		segue_python_add_literal(text, path[i], strlen(path[i]));
	}
	segue_python_add(text, "]");
}
