/*
 * JSON: a writer for reports, and a strict reader for the command line, which prints them as
 * tables.
 *
 * Text is UTF-8. Record keys may be any bytes: a byte that is not part of valid UTF-8 is written as
 * the escape of U+DC00 + byte (as Python's "surrogateescape" does), and read back as that byte.
 * Numbers keep all their digits; NaN and infinities, which JSON does not have, are the strings
 * "nan", "inf", "-inf".
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

/* ---- Reader ---- */

enum segue_json_type {
	SEGUE_JSON_NULL,
	SEGUE_JSON_BOOL,
	SEGUE_JSON_NUMBER,
	SEGUE_JSON_STRING,
	SEGUE_JSON_ARRAY,
	SEGUE_JSON_OBJECT,
};

struct segue_json_value {
	enum segue_json_type type;
	char *name; /* in an object, else NULL */
	/* Of a string its bytes, of a number its digits, else "null", "true", "false" or "";
	 * NUL-terminated. */
	char *text;
	size_t size;                           /* of text */
	struct segue_json_value *first, *next; /* in a container; the next in the same container */
	size_t count;                          /* of values in a container */
};

/*
 * Reads a text: exactly one value, nothing after it. SEGUE_EPROTOCOL says what is wrong at which
 * byte; containers nest at most 32 deep. The caller frees *out with segue_json_destroy().
 */
int segue_json_parse(const char *text, size_t size, struct segue_json_value **out);
/* NULL is fine. */
void segue_json_destroy(struct segue_json_value *value);

/* The value of that name in an object; NULL if there is none, or `value` is NULL or no object. */
const struct segue_json_value *segue_json_get(
	const struct segue_json_value *value, const char *name);
/* The text of the value of that name; "" if there is none. */
const char *segue_json_get_text(const struct segue_json_value *value, const char *name);
/* The whole number of that name; 0 if there is none. */
uint64_t segue_json_get_unsigned(const struct segue_json_value *value, const char *name);
/* True if the value of that name is `true`. */
bool segue_json_get_bool(const struct segue_json_value *value, const char *name);

#endif
