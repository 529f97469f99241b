/*
 * Error codes, their texts, and the thread's detail message.
 */
#include "core/error.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A message in the making. The thread's own may be among the arguments, so it is built beside it.
 */
struct text {
	char bytes[SEGUE_DETAIL_MAX];
	size_t used;
};

static _Thread_local char detail[SEGUE_DETAIL_MAX];

/* Ends a text that did not fit with "...", not in the middle of a UTF-8 sequence. */
static void clip(struct text *text)
{
	size_t cut = sizeof(text->bytes) - sizeof("...");

	while (cut > 0 && ((unsigned char)text->bytes[cut] & 0xc0u) == 0x80u)
		cut--;
	memcpy(text->bytes + cut, "...", sizeof("..."));
	text->used = sizeof(text->bytes);
}

static void append_list(struct text *text, const char *format, va_list list)
	__attribute__((format(printf, 2, 0)));

static void append_list(struct text *text, const char *format, va_list list)
{
	size_t room = sizeof(text->bytes) - text->used;
	int length;

	if (room == 0)
		return;
	length = vsnprintf(text->bytes + text->used, room, format, list);
	if (length < 0)
		text->bytes[text->used] = '\0';
	else if ((size_t)length < room)
		text->used += (size_t)length;
	else
		clip(text);
}

static void append(struct text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void append(struct text *text, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	append_list(text, format, list);
	va_end(list);
}

static void publish(const struct text *text)
{
	memcpy(detail, text->bytes, strlen(text->bytes) + 1);
}

int segue_fail(int code, const char *format, ...)
{
	struct text text = {.used = 0};
	va_list list;

	va_start(list, format);
	append_list(&text, format, list);
	va_end(list);
	publish(&text);
	return code;
}

/* What may be done about it, where a limit of the system is the reason. */
static const char *remedy(int number)
{
	switch (number) {
	case EMFILE:
		return " (raise ulimit -n, or LimitNOFILE= of the service)";
	case ENFILE:
		return " (the machine's limit: sysctl fs.file-max)";
	case EFBIG:
		return " (raise ulimit -f, or LimitFSIZE= of the service)";
	default:
		return "";
	}
}

int segue_fail_errno(int code, const char *format, ...)
{
	int number = errno;
	struct text text = {.used = 0};
	char buffer[128];
	va_list list;

	va_start(list, format);
	append_list(&text, format, list);
	va_end(list);
	append(&text, ": %s%s", strerror_r(number, buffer, sizeof(buffer)), remedy(number));
	publish(&text);
	errno = number;
	return code;
}

int segue_fail_within(int code, const char *format, ...)
{
	struct text text = {.used = 0};
	va_list list;

	va_start(list, format);
	append_list(&text, format, list);
	va_end(list);
	append(&text, ": %s", detail);
	publish(&text);
	return code;
}

int segue_fail_no_directory(const char *path)
{
	char part[PATH_MAX];
	struct stat info;

	for (size_t size = 1; path[0] && path[size - 1] && size < sizeof(part); size++) {
		if (path[size] != '/' && path[size] != '\0')
			continue;
		memcpy(part, path, size);
		part[size] = '\0';
		if (stat(part, &info) == 0 && !S_ISDIR(info.st_mode))
			return segue_fail(
				SEGUE_ESYSTEM, "%s is no directory: name another place", part);
	}
	return segue_fail(SEGUE_ESYSTEM, "%s: %s", path, strerror(ENOTDIR));
}

void segue_outcome_take(struct segue_outcome *outcome, int rc)
{
	outcome->rc = rc;
	strcpy(outcome->detail, rc ? detail : "");
}

int segue_outcome_give(const struct segue_outcome *outcome)
{
	return outcome->rc ? segue_fail(outcome->rc, "%s", outcome->detail) : 0;
}

const char *segue_error_detail(void)
{
	return detail;
}

const char *segue_strerror(int code)
{
	switch (code) {
	case SEGUE_OK:
		return "no error";
#define TEXT(name, number, text)                                                                   \
	case SEGUE_##name:                                                                         \
		return text;
		SEGUE_ERRORS(TEXT)
#undef TEXT
	default:
		return "unknown error";
	}
}

const char *segue_error_name(int code)
{
	switch (code) {
	case SEGUE_OK:
		return "OK";
#define NAME(name, number, text)                                                                   \
	case SEGUE_##name:                                                                         \
		return #name;
		SEGUE_ERRORS(NAME)
#undef NAME
	default:
		return "?";
	}
}

const char *segue_version(void)
{
	return SEGUE_VERSION_STRING;
}

void segue_free(void *bytes)
{
	free(bytes);
}

int segue_required_check(const char *what, uint64_t required)
{
	if (!required)
		return 0;
	return segue_fail(SEGUE_EFORMAT,
		"%s requires what this version of segue (%s) does not know (bits 0x%" PRIx64
		"): use a later one",
		what, SEGUE_VERSION_STRING, required);
}
