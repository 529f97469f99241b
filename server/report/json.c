/* JSON, written and read. */
#include "report/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "core/error.h"
#include "core/utf8.h"

enum { DEPTH_MAX = 32, ESCAPED_BYTES = 0xdc00 };

/* ---- Writer ---- */

static void append(struct segue_json *json, const char *bytes, size_t size)
{
	if (json->failed)
		return;
	if (json->capacity - json->size <= size) {
		size_t capacity = 2 * (json->capacity + size) + 256;
		char *grown = realloc(json->text, capacity);
		if (!grown) {
			json->failed = true;
			return;
		}
		json->text = grown;
		json->capacity = capacity;
	}
	memcpy(json->text + json->size, bytes, size);
	json->size += size;
	json->text[json->size] = '\0';
}

static void append_format(struct segue_json *json, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void append_format(struct segue_json *json, const char *format, ...)
{
	char text[64];
	va_list arguments;

	va_start(arguments, format);
	int size = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	append(json, text, (size_t)size);
}

static void append_character(struct segue_json *json, const char *at, size_t size)
{
	unsigned char byte = (unsigned char)*at;

	if (size == 0)
		append_format(json, "\\u%04x", ESCAPED_BYTES + byte);
	else if (byte == '"' || byte == '\\')
		append_format(json, "\\%c", byte);
	else if (byte == '\n')
		append(json, "\\n", 2);
	else if (byte < 0x20 || byte == 0x7f)
		append_format(json, "\\u%04x", byte);
	else
		append(json, at, size);
}

static void append_quoted(struct segue_json *json, const char *bytes, size_t size)
{
	append(json, "\"", 1);
	while (size > 0) {
		size_t length = segue_utf8_next(bytes, size), step = length ? length : 1;
		append_character(json, bytes, length);
		bytes += step;
		size -= step;
	}
	append(json, "\"", 1);
}

/* What stands before a value. */
static void lead_in(struct segue_json *json, const char *name)
{
	if (json->comma)
		append(json, ",", 1);
	json->comma = true;
	if (name) {
		append_quoted(json, name, strlen(name));
		append(json, ":", 1);
	}
}

void segue_json_begin(struct segue_json *json, const char *name, char bracket)
{
	lead_in(json, name);
	append(json, &bracket, 1);
	json->comma = false;
}

void segue_json_end(struct segue_json *json, char bracket)
{
	append(json, &bracket, 1);
	json->comma = true;
}

void segue_json_bytes(struct segue_json *json, const char *name, const void *bytes, size_t size)
{
	lead_in(json, name);
	append_quoted(json, bytes, size);
}

void segue_json_string(struct segue_json *json, const char *name, const char *text)
{
	segue_json_bytes(json, name, text, strlen(text));
}

void segue_json_unsigned(struct segue_json *json, const char *name, uint64_t value)
{
	lead_in(json, name);
	append_format(json, "%" PRIu64, value);
}

void segue_json_signed(struct segue_json *json, const char *name, int64_t value)
{
	lead_in(json, name);
	append_format(json, "%" PRId64, value);
}

void segue_json_real(struct segue_json *json, const char *name, double value, int digits)
{
	if (isnan(value)) {
		segue_json_string(json, name, "nan");
	} else if (isinf(value)) {
		segue_json_string(json, name, value > 0 ? "inf" : "-inf");
	} else {
		lead_in(json, name);
		append_format(json, "%.*g", digits, value);
	}
}

void segue_json_bool(struct segue_json *json, const char *name, bool value)
{
	lead_in(json, name);
	append_format(json, "%s", value ? "true" : "false");
}

void segue_json_null(struct segue_json *json, const char *name)
{
	lead_in(json, name);
	append(json, "null", 4);
}

int segue_json_take(struct segue_json *json, char **out)
{
	if (json->failed || !json->text) {
		segue_json_finish(json);
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	}
	*out = json->text;
	*json = (struct segue_json){0};
	return 0;
}

void segue_json_finish(struct segue_json *json)
{
	free(json->text);
	*json = (struct segue_json){0};
}

/* ---- Reader ---- */

/* What append_character() makes of a byte that is not text, which no library reads. */
static bool is_escaped_byte(const char *at)
{
	return strncmp(at, "\\udc", 4) == 0 && strspn(at + 4, "0123456789abcdef") >= 2 &&
	       at[4] >= '8';
}

/* "\\x80" in place of "\udc80": how a terminal is shown it, and shorter. */
static void show_bytes(char *text)
{
	const char *at = text;

	while (*at) {
		if (is_escaped_byte(at)) {
			const char shown[] = {'\\', '\\', 'x', at[4], at[5]};
			memcpy(text, shown, sizeof(shown));
			text += sizeof(shown);
			at += 6;
			continue;
		}
		if (*at == '\\' && at[1])
			*text++ = *at++;
		*text++ = *at++;
	}
	*text = '\0';
}

/* Takes `tokener` over, which may be NULL; what it reads is changed. */
static int parse(struct json_tokener *tokener, char *text, struct json_object **out)
{
	struct json_object *value;
	int rc = 0;

	if (!tokener || !text) {
		rc = segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
	} else {
		show_bytes(text);
		json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
		/* To the NUL, or a number would have no end. */
		value = json_tokener_parse_ex(tokener, text, -1);
		enum json_tokener_error error = json_tokener_get_error(tokener);
		if (error == json_tokener_success)
			*out = value;
		else
			rc = segue_fail(SEGUE_EPROTOCOL, "not JSON: %s at byte %zu",
				error == json_tokener_continue ? "no end"
							       : json_tokener_error_desc(error),
				json_tokener_get_parse_end(tokener));
	}
	if (tokener)
		json_tokener_free(tokener);
	return rc;
}

int segue_json_parse(const char *text, struct json_object **out)
{
	char *copy = strdup(text);
	int rc = parse(json_tokener_new_ex(DEPTH_MAX), copy, out);

	free(copy);
	return rc;
}

struct json_object *segue_json_at(struct json_object *array, size_t index)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_get_idx(array, index)
							   : NULL;
}

size_t segue_json_count(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

const char *segue_json_get_text(struct json_object *object, const char *name)
{
	const char *text = json_object_get_string(json_object_object_get(object, name));

	return text ? text : "";
}

uint64_t segue_json_get_unsigned(struct json_object *object, const char *name)
{
	return json_object_get_uint64(json_object_object_get(object, name));
}

bool segue_json_get_bool(struct json_object *object, const char *name)
{
	return json_object_get_boolean(json_object_object_get(object, name));
}
