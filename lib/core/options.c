/*
 * Options, row by row.
 */
#include "core/options.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/differences.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/utf8.h"

/* ---- Values ---- */

static uint64_t read_number(const void *at, size_t size)
{
	uint64_t wide;
	uint32_t number;
	bool flag;

	switch (size) {
	case sizeof(wide):
		memcpy(&wide, at, sizeof(wide));
		return wide;
	case sizeof(number):
		memcpy(&number, at, sizeof(number));
		return number;
	}
	assert(size == sizeof(flag));
	memcpy(&flag, at, sizeof(flag));
	return flag;
}

static void write_number(void *at, size_t size, uint64_t value)
{
	uint32_t number = (uint32_t)value;
	bool flag = value;

	switch (size) {
	case sizeof(value):
		memcpy(at, &value, sizeof(value));
		return;
	case sizeof(number):
		memcpy(at, &number, sizeof(number));
		return;
	}
	assert(size == sizeof(flag));
	memcpy(at, &flag, sizeof(flag));
}

uint64_t segue_option_get(const struct segue_option *option, const void *spec)
{
	return read_number((const char *)spec + option->offset, option->size);
}

static char **text_of(const struct segue_option *option, void *spec)
{
	return (char **)((char *)spec + option->offset);
}

const char *segue_option_text(const struct segue_option *option, const void *spec)
{
	return *(char *const *)((const char *)spec + option->offset);
}

/* ---- Copying ---- */

int segue_text_copy(const char *from, char **to)
{
	if (!from)
		return 0;
	*to = strdup(from);
	if (!*to)
		return segue_fail(SEGUE_ENOMEM, "no memory for the spec of a stream");
	return 0;
}

int segue_options_copy(const struct segue_option *list, const void *from, void *to)
{
	int rc = 0;

	for (const struct segue_option *option = list; option->name; option++) {
		if (option->kind != SEGUE_OPTION_TEXT)
			continue;
		*text_of(option, to) = NULL;
		if (!rc)
			rc = segue_text_copy(segue_option_text(option, from), text_of(option, to));
	}
	return rc;
}

void segue_options_finish(const struct segue_option *list, void *spec)
{
	for (const struct segue_option *option = list; option->name; option++)
		if (option->kind == SEGUE_OPTION_TEXT)
			free(*text_of(option, spec));
}

/* ---- Checking ---- */

/* What people call it, where that is not one name for all languages. */
static const char *said(const struct segue_option *option)
{
	return option->said ? option->said : option->name;
}

int segue_name_check(const char *what, const char *name, bool colon_allowed)
{
	size_t length;

	if (!name)
		return segue_fail(SEGUE_EINVAL, "%s is missing (NULL)", what);
	length = strlen(name);
	if (length == 0)
		return segue_fail(SEGUE_EINVAL, "%s is empty", what);
	if (length > SEGUE_NAME_MAX)
		return segue_fail(SEGUE_EINVAL, "%s has %zu bytes, at most %d are allowed", what,
			length, SEGUE_NAME_MAX);
	if (!segue_utf8_valid(name, length))
		return segue_fail(SEGUE_EINVAL, "%s is not valid UTF-8", what);
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)name[i];

		if (byte < 0x20 || byte == 0x7f)
			return segue_fail(SEGUE_EINVAL,
				"%s has the control byte 0x%02x at place %zu; names are printable",
				what, byte, i);
		if (byte == ':' && !colon_allowed)
			return segue_fail(SEGUE_EINVAL,
				"%s \"%s\" has a ':'; that sign separates the parts of a key", what,
				name);
	}
	return 0;
}

int segue_range_check(const char *what, uint64_t value, uint64_t least, uint64_t most)
{
	if (value >= least && value <= most)
		return 0;
	return segue_fail(SEGUE_EINVAL,
		"%s is %" PRIu64 ", from %" PRIu64 " to %" PRIu64 " is allowed", what, value, least,
		most);
}

static int fail_choice(const struct segue_option *option, const char *what, uint64_t value)
{
	char names[256] = "";
	size_t used = 0;

	for (uint64_t i = 0; i <= option->most && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%" PRIu64 " (%s)",
			i ? ", " : "", i, option->choices[i]);
	return segue_fail(
		SEGUE_EINVAL, "%s is %" PRIu64 ", which is none of %s", what, value, names);
}

/* Bindings take seconds where C takes milliseconds. */
static int fail_number(const struct segue_option *option, const char *what, uint64_t value)
{
	const char *unit = option->unit;
	int rc = segue_fail(SEGUE_EINVAL,
		"%s is %" PRIu64 ", from %" PRIu64 " to %" PRIu64 "%s%s is allowed", what, value,
		option->least, option->most, unit ? " " : "", unit ? unit : "");

	if (unit && strcmp(unit, "ms") == 0)
		segue_fail(rc, "%s (%.10g s; %.10g to %.10g s)", segue_error_detail(),
			(double)value / 1e3, (double)option->least / 1e3,
			(double)option->most / 1e3);
	return rc;
}

static int check_number(const struct segue_option *option, const char *within, uint64_t value)
{
	char what[64];

	if (value >= option->least && value <= option->most)
		return 0;
	snprintf(what, sizeof(what), "%s%s", within, said(option));
	return option->kind == SEGUE_OPTION_CHOICE ? fail_choice(option, what, value)
						   : fail_number(option, what, value);
}

static int check_text(const struct segue_option *option, const char *within, const char *text)
{
	char what[64];

	snprintf(what, sizeof(what), "%s%s", within, said(option));
	return text ? segue_name_check(what, text, true) : 0;
}

int segue_options_check(const struct segue_option *list, const char *within, const void *spec)
{
	for (const struct segue_option *option = list; option->name; option++) {
		int rc = option->kind == SEGUE_OPTION_TEXT
				 ? check_text(option, within, segue_option_text(option, spec))
				 : check_number(option, within, segue_option_get(option, spec));
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- Setting ---- */

const struct segue_option *segue_option_find(
	const struct segue_option *list, enum segue_spec_option id)
{
	for (const struct segue_option *option = list; option->name; option++)
		if (option->id == id)
			return option;
	return NULL;
}

void segue_options_init(const struct segue_option *list, void *spec)
{
	for (const struct segue_option *option = list; option->name; option++) {
		if (option->kind == SEGUE_OPTION_TEXT)
			*text_of(option, spec) = NULL;
		else
			write_number((char *)spec + option->offset, option->size, option->usual);
	}
}

int segue_option_set(
	const struct segue_option *option, const char *within, void *spec, uint64_t value)
{
	int rc;

	if (option->kind == SEGUE_OPTION_TEXT)
		return segue_fail(SEGUE_EINVAL, "%s%s is a text: segue_spec_set_text sets it",
			within, said(option));
	rc = check_number(option, within, value);
	if (!rc)
		write_number((char *)spec + option->offset, option->size, value);
	return rc;
}

int segue_option_set_text(
	const struct segue_option *option, const char *within, void *spec, const char *text)
{
	char *copy = NULL;
	int rc;

	if (option->kind != SEGUE_OPTION_TEXT)
		return segue_fail(SEGUE_EINVAL, "%s%s is no text: segue_spec_set sets it", within,
			said(option));
	rc = check_text(option, within, text);
	if (!rc)
		rc = segue_text_copy(text, &copy);
	if (rc)
		return rc;
	free(*text_of(option, spec));
	*text_of(option, spec) = copy;
	return 0;
}

/* ---- Hashing and comparing ---- */

void segue_options_hash(
	const struct segue_option *list, const void *spec, struct segue_digest *digest)
{
	for (const struct segue_option *option = list; option->name; option++) {
		bool text = option->kind == SEGUE_OPTION_TEXT;

		if (option->part != SEGUE_OPTION_IDENTITY && option->part != SEGUE_OPTION_GROWING)
			continue;
		if (text ? !segue_option_text(option, spec)
			 : segue_option_get(option, spec) == option->usual)
			continue;
		segue_digest_text(digest, option->name);
		if (text)
			segue_digest_text(digest, segue_option_text(option, spec));
		else
			segue_digest_number(digest, segue_option_get(option, spec));
	}
	segue_digest_text(digest, "");
}

const char *segue_option_print(const struct segue_option *option, const void *spec, char text[24])
{
	const char *name;
	uint64_t value;

	if (option->kind == SEGUE_OPTION_TEXT) {
		name = segue_option_text(option, spec);
		return name ? name : "(none)";
	}
	value = segue_option_get(option, spec);
	if (option->none && value == 0)
		return "None";
	if (option->kind == SEGUE_OPTION_FLAG)
		return value ? "true" : "false";
	if (option->kind == SEGUE_OPTION_CHOICE)
		return option->choices[value];
	snprintf(text, 24, "%" PRIu64, value);
	return text;
}

static bool same(const struct segue_option *option, const void *stored, const void *asked)
{
	const char *ours, *theirs;

	if (option->kind != SEGUE_OPTION_TEXT)
		return segue_option_get(option, stored) == segue_option_get(option, asked);
	ours = segue_option_text(option, stored);
	theirs = segue_option_text(option, asked);
	return ours && theirs ? strcmp(ours, theirs) == 0 : ours == theirs;
}

void segue_options_compare(const struct segue_option *list, const void *stored, const void *asked,
	struct segue_differences *differences)
{
	char text[2][24];

	for (const struct segue_option *option = list; option->name; option++)
		if ((option->part == SEGUE_OPTION_IDENTITY ||
			    option->part == SEGUE_OPTION_SCHEDULE) &&
			!same(option, stored, asked))
			segue_differ(differences, "%s: %s in the store, %s asked for", said(option),
				segue_option_print(option, stored, text[0]),
				segue_option_print(option, asked, text[1]));
}
