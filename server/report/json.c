/* JSON, written and read. */
#include "report/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	append_format(json, "%llu", (unsigned long long)value);
}

void segue_json_signed(struct segue_json *json, const char *name, int64_t value)
{
	lead_in(json, name);
	append_format(json, "%lld", (long long)value);
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

struct reader {
	const char *begin, *at, *end;
	int depth;
};

static int refuse(const struct reader *reader, const char *what)
{
	return segue_fail(
		SEGUE_EPROTOCOL, "not JSON: %s at byte %zd", what, reader->at - reader->begin);
}

static void skip_space(struct reader *reader)
{
	while (reader->at < reader->end && *reader->at && strchr(" \t\r\n", *reader->at))
		reader->at++;
}

/* Passes over `text` if it comes next. */
static bool accept(struct reader *reader, const char *text)
{
	size_t size = strlen(text);

	if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, text, size) != 0)
		return false;
	reader->at += size;
	return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t read_hex(struct reader *reader)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	int32_t value = 0;

	if (reader->end - reader->at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		const char *digit = memchr(digits, *reader->at++, sizeof(digits) - 1);
		if (!digit)
			return -1;
		value = value << 4 | ((digit - digits) & 15);
	}
	return value;
}

static size_t encode(int32_t code, char out[4])
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 63));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 63));
		out[2] = (char)(0x80 | (code & 63));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 63));
	out[2] = (char)(0x80 | (code >> 6 & 63));
	out[3] = (char)(0x80 | (code & 63));
	return 4;
}

/* After "\u": one character, from two escapes if it is beyond U+FFFF; or one escaped byte. */
static int read_code(struct reader *reader, char *out, size_t *size)
{
	int32_t code = read_hex(reader), low;

	if (code >= ESCAPED_BYTES + 0x80 && code <= ESCAPED_BYTES + 0xff) {
		out[(*size)++] = (char)(code - ESCAPED_BYTES);
		return 0;
	}
	if (code >= 0xd800 && code < 0xdc00) {
		low = accept(reader, "\\u") ? read_hex(reader) : -1;
		code = low >= 0xdc00 && low < 0xe000
			       ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
			       : -1;
	}
	if (code < 0 || (code >= 0xdc00 && code < 0xe000))
		return refuse(reader, "a wrong \\u escape");
	*size += encode(code, out + *size);
	return 0;
}

static int read_escape(struct reader *reader, char *out, size_t *size)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	char name = reader->at < reader->end ? *reader->at++ : '\0';
	const char *found = name ? strchr(names, name) : NULL;

	if (name == 'u')
		return read_code(reader, out, size);
	if (!found)
		return refuse(reader, "a wrong escape");
	out[(*size)++] = values[found - names];
	return 0;
}

/* Bytes up to the closing quote. What is read is never longer than how it was written. */
static size_t measure_string(const struct reader *reader)
{
	const char *at = reader->at;

	while (at < reader->end && *at != '"')
		at += *at == '\\' && at + 1 < reader->end ? 2 : 1;
	return (size_t)(at - reader->at);
}

/* What follows the opening quote. */
static int read_string(struct reader *reader, char **out, size_t *out_size)
{
	char *text = malloc(measure_string(reader) + 1);
	size_t size = 0;
	int rc = 0;

	if (!text)
		return segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
	while (!rc && !accept(reader, "\"")) {
		size_t length = segue_utf8_next(reader->at, (size_t)(reader->end - reader->at));
		if (accept(reader, "\\")) {
			rc = read_escape(reader, text, &size);
		} else if (length == 0 || (unsigned char)*reader->at < 0x20) {
			rc = refuse(reader, "a string that does not end, or a byte that no string "
					    "holds");
		} else {
			memcpy(text + size, reader->at, length);
			size += length;
			reader->at += length;
		}
	}
	if (rc) {
		free(text);
		return rc;
	}
	text[size] = '\0';
	*out = text;
	*out_size = size;
	return 0;
}

static bool accept_digits(struct reader *reader)
{
	const char *before = reader->at;

	while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9')
		reader->at++;
	return reader->at > before;
}

static int read_number(struct reader *reader, struct segue_json_value *value)
{
	const char *before = reader->at;

	accept(reader, "-");
	if (!accept(reader, "0") && !accept_digits(reader))
		return refuse(reader, "no value");
	if (accept(reader, ".") && !accept_digits(reader))
		return refuse(reader, "no digit after the point");
	if (accept(reader, "e") || accept(reader, "E")) {
		if (!accept(reader, "+"))
			accept(reader, "-");
		if (!accept_digits(reader))
			return refuse(reader, "no digit in the exponent");
	}
	value->type = SEGUE_JSON_NUMBER;
	value->size = (size_t)(reader->at - before);
	value->text = strndup(before, value->size);
	return value->text ? 0 : segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
}

static int read_value(struct reader *reader, struct segue_json_value *value);

static int read_member(struct reader *reader, struct segue_json_value *value, bool named)
{
	size_t size;
	int rc;

	skip_space(reader);
	if (named) {
		if (!accept(reader, "\""))
			return refuse(reader, "a member without a name");
		rc = read_string(reader, &value->name, &size);
		if (rc)
			return rc;
		skip_space(reader);
		if (!accept(reader, ":"))
			return refuse(reader, "no ':' after a name");
	}
	rc = read_value(reader, value);
	skip_space(reader);
	return rc;
}

static int read_container(struct reader *reader, struct segue_json_value *value, const char *close)
{
	struct segue_json_value **last = &value->first;

	value->type = *close == '}' ? SEGUE_JSON_OBJECT : SEGUE_JSON_ARRAY;
	if (++reader->depth > DEPTH_MAX)
		return refuse(reader, "containers nested too deep");
	skip_space(reader);
	bool more = !accept(reader, close);
	while (more) {
		*last = calloc(1, sizeof(**last));
		if (!*last)
			return segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
		int rc = read_member(reader, *last, *close == '}');
		if (rc)
			return rc;
		last = &(*last)->next;
		value->count++;
		more = !accept(reader, close);
		if (more && !accept(reader, ","))
			return refuse(reader, "no ',' between two values");
	}
	reader->depth--;
	return 0;
}

static int read_value(struct reader *reader, struct segue_json_value *value)
{
	static const char *const words[] = {"null", "true", "false"};

	skip_space(reader);
	if (accept(reader, "{"))
		return read_container(reader, value, "}");
	if (accept(reader, "["))
		return read_container(reader, value, "]");
	if (accept(reader, "\"")) {
		value->type = SEGUE_JSON_STRING;
		return read_string(reader, &value->text, &value->size);
	}
	for (int i = 0; i < 3; i++) {
		if (!accept(reader, words[i]))
			continue;
		value->type = i ? SEGUE_JSON_BOOL : SEGUE_JSON_NULL;
		value->size = strlen(words[i]);
		value->text = strdup(words[i]);
		return value->text ? 0 : segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
	}
	return read_number(reader, value);
}

int segue_json_parse(const char *text, size_t size, struct segue_json_value **out)
{
	struct reader reader = {.begin = text, .at = text, .end = text + size};
	struct segue_json_value *value = calloc(1, sizeof(*value));

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory to read JSON");
	int rc = read_value(&reader, value);
	skip_space(&reader);
	if (!rc && reader.at < reader.end)
		rc = refuse(&reader, "something after the end");
	if (rc) {
		segue_json_destroy(value);
		return rc;
	}
	*out = value;
	return 0;
}

void segue_json_destroy(struct segue_json_value *value)
{
	while (value) {
		struct segue_json_value *next = value->next;
		segue_json_destroy(value->first);
		free(value->name);
		free(value->text);
		free(value);
		value = next;
	}
}

const struct segue_json_value *segue_json_get(
	const struct segue_json_value *value, const char *name)
{
	const struct segue_json_value *member =
		value && value->type == SEGUE_JSON_OBJECT ? value->first : NULL;

	while (member && strcmp(member->name, name) != 0)
		member = member->next;
	return member;
}

const char *segue_json_get_text(const struct segue_json_value *value, const char *name)
{
	const struct segue_json_value *member = segue_json_get(value, name);

	return member && member->text ? member->text : "";
}

uint64_t segue_json_get_unsigned(const struct segue_json_value *value, const char *name)
{
	const struct segue_json_value *member = segue_json_get(value, name);

	return member && member->type == SEGUE_JSON_NUMBER ? strtoull(member->text, NULL, 10) : 0;
}

bool segue_json_get_bool(const struct segue_json_value *value, const char *name)
{
	const struct segue_json_value *member = segue_json_get(value, name);

	return member && member->type == SEGUE_JSON_BOOL && strcmp(member->text, "true") == 0;
}
