/*
 * JSON: a writer for reports, and a reader for the command line, which prints them as tables.
 *
 * Text is UTF-8. Record keys may be any bytes: a byte that is not part of valid UTF-8 is written as
 * the escape of U+DC00 + byte, as Python's "surrogateescape" does. Numbers keep all their digits;
 * NaN and infinities, which JSON does not have, are the strings "nan", "inf", "-inf".
 */
#ifndef SEGUE_REPORT_JSON_H
#define SEGUE_REPORT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Writer ---- */

/* A text under construction; a zeroed one is empty. Memory that runs out is seen at the end. */
struct segue_json {
	char *text;
	size_t size, capacity;
	bool comma;  /* a value stands before, in the same container */
	bool failed; /* no memory */
};

/* Each writes one value; `name` is its name in an object, NULL in an array and at the top. */
void segue_json_begin(struct segue_json *json, const char *name, char bracket); /* '{' or '[' */
void segue_json_end(struct segue_json *json, char bracket);                     /* '}' or ']' */
void segue_json_string(struct segue_json *json, const char *name, const char *text);
void segue_json_bytes(struct segue_json *json, const char *name, const void *bytes, size_t size);
void segue_json_unsigned(struct segue_json *json, const char *name, uint64_t value);
void segue_json_signed(struct segue_json *json, const char *name, int64_t value);
/* With as many digits as tell it from every other: 9 for a float, 17 for a double. */
void segue_json_real(struct segue_json *json, const char *name, double value, int digits);
void segue_json_bool(struct segue_json *json, const char *name, bool value);
void segue_json_null(struct segue_json *json, const char *name);

/* Hands the text over (malloc'd, NUL-terminated) and empties the writer. SEGUE_ENOMEM. */
int segue_json_take(struct segue_json *json, char **out);
/* Frees a text that nobody took. */
void segue_json_finish(struct segue_json *json);

/* ---- Reader: json-c, which holds 64 bits, and numbers with the digits that they had ---- */

struct json_object; /* <json-c/json.h>; NULL is `null` */

/*
 * Reads a text: exactly one value, nothing after it, containers nested at most 32 deep. A byte that
 * segue_json_bytes() wrote of what is not text comes out as the four characters "\xNN".
 * SEGUE_EPROTOCOL says what is wrong at which byte. The caller frees *out with json_object_put().
 */
int segue_json_parse(const char *text, struct json_object **out);

/* Of an array, where json-c would abort: NULL beyond the end; nothing is in what is no array. */
struct json_object *segue_json_at(struct json_object *array, size_t index);
size_t segue_json_count(struct json_object *array);

/* The value of that name in an object as text; "" if there is none, or `object` is none. */
const char *segue_json_get_text(struct json_object *object, const char *name);
/* As a whole number, the nearest there is; 0 if there is none. */
uint64_t segue_json_get_unsigned(struct json_object *object, const char *name);
/* False if there is none. */
bool segue_json_get_bool(struct json_object *object, const char *name);

#endif
