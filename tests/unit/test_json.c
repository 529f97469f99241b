/* JSON: what is written; what the library reads of it, and of what a hostile server may send. */
#include "report/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <criterion/criterion.h>
#include <json-c/json.h>

#include "core/utf8.h"
#include "segue/segue.h"

static struct json_object *parse(const char *text)
{
	struct json_object *value = NULL;
	int rc = segue_json_parse(text, &value);

	cr_assert_eq(rc, 0, "%s: %s", text, segue_error_detail());
	return value;
}

static void expect_text(struct segue_json *json, const char *expected)
{
	char *text;

	cr_assert_eq(segue_json_take(json, &text), 0);
	cr_assert_str_eq(text, expected);
	free(text);
}

/* ---- Writer ---- */

Test(json, writes_containers_and_commas)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "empty", '[');
	segue_json_end(&json, ']');
	segue_json_begin(&json, "list", '[');
	segue_json_unsigned(&json, NULL, UINT64_MAX);
	segue_json_signed(&json, NULL, INT64_MIN);
	segue_json_begin(&json, NULL, '{');
	segue_json_end(&json, '}');
	segue_json_null(&json, NULL);
	segue_json_end(&json, ']');
	segue_json_bool(&json, "yes", true);
	segue_json_bool(&json, "no", false);
	segue_json_end(&json, '}');
	expect_text(&json, "{\"empty\":[],\"list\":[18446744073709551615,-9223372036854775808,{},"
			   "null],\"yes\":true,\"no\":false}");
}

Test(json, escapes_what_json_cannot_hold)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '[');
	segue_json_string(&json, NULL, "a\"b\\c\nd\te\x7f");
	segue_json_bytes(&json, NULL, "\0\x01", 2);
	segue_json_string(&json, NULL, "\xc3\xa9\xf0\x9f\x98\x80");
	/* an overlong '/', a surrogate, half a character */
	segue_json_string(&json, NULL, "\xc0\xaf|\xed\xa0\x80|\xe2\x82");
	segue_json_end(&json, ']');
	expect_text(&json, "[\"a\\\"b\\\\c\\nd\\u0009e\\u007f\",\"\\u0000\\u0001\","
			   "\"\xc3\xa9\xf0\x9f\x98\x80\","
			   "\"\\udcc0\\udcaf|\\udced\\udca0\\udc80|\\udce2\\udc82\"]");
}

Test(json, writes_reals_that_come_back)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '[');
	segue_json_real(&json, NULL, 0.5, 9);
	segue_json_real(&json, NULL, (double)0.1F, 9);
	segue_json_real(&json, NULL, 0.1, 17);
	segue_json_real(&json, NULL, -0.0, 9);
	segue_json_real(&json, NULL, NAN, 9);
	segue_json_real(&json, NULL, INFINITY, 9);
	segue_json_real(&json, NULL, -INFINITY, 17);
	segue_json_end(&json, ']');
	expect_text(&json, "[0.5,0.100000001,0.10000000000000001,-0,\"nan\",\"inf\",\"-inf\"]");
}

Test(json, a_long_text_grows)
{
	struct segue_json json = {0};
	struct json_object *value;
	char *text;

	segue_json_begin(&json, NULL, '[');
	for (unsigned i = 0; i < 100000; i++)
		segue_json_unsigned(&json, NULL, i);
	segue_json_end(&json, ']');
	cr_assert_eq(segue_json_take(&json, &text), 0);
	value = parse(text);
	free(text);
	cr_assert_eq(segue_json_count(value), 100000);
	for (unsigned i = 0; i < 100000; i++)
		cr_assert_eq(json_object_get_uint64(segue_json_at(value, i)), i);
	cr_assert_null(segue_json_at(value, 100000));
	json_object_put(value);
}

/* ---- Reader ---- */

Test(json, reads_members)
{
	struct json_object *value = parse(
		" { \"a\" : [ 1 , -2.5e+3 , true , null ] ,\n\"b\":{\"c\":\"x\\u00e9\\ud83d\\ude00"
		"\\/\\b\\f\\n\\r\\t\\\"\\\\\"} ,\t\"n\":18446744073709551615,\"t\":true}\r\n");
	struct json_object *list = json_object_object_get(value, "a");

	cr_assert_eq(segue_json_count(list), 4);
	cr_assert_str_eq(json_object_get_string(segue_json_at(list, 0)), "1");
	cr_assert_str_eq(json_object_get_string(segue_json_at(list, 1)), "-2.5e+3");
	cr_assert(json_object_get_boolean(segue_json_at(list, 2)));
	cr_assert_null(segue_json_at(list, 3));
	cr_assert_str_eq(segue_json_get_text(json_object_object_get(value, "b"), "c"),
		"x\xc3\xa9\xf0\x9f\x98\x80/\b\f\n\r\t\"\\");
	cr_assert_eq(segue_json_get_unsigned(value, "n"), UINT64_MAX);
	cr_assert_str_eq(segue_json_get_text(value, "n"), "18446744073709551615");
	cr_assert(segue_json_get_bool(value, "t"));
	json_object_put(value);
}

/* Whatever a server sends in the place of what was expected. */
Test(json, absent_members_are_empty)
{
	struct json_object *value = parse("{\"a\":[],\"s\":\"x\",\"n\":7,\"o\":{},\"z\":null}");
	static const char *const names[] = {"a", "s", "n", "o", "z", "absent"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct json_object *member = json_object_object_get(value, names[i]);
		cr_assert_eq(segue_json_count(member), 0);
		cr_assert_null(segue_json_at(member, 0));
		cr_assert_str_eq(segue_json_get_text(member, "b"), "");
		cr_assert_eq(segue_json_get_unsigned(member, "b"), 0);
		cr_assert_not(segue_json_get_bool(member, "b"));
	}
	cr_assert_eq(segue_json_get_unsigned(value, "s"), 0);
	cr_assert_str_eq(segue_json_get_text(value, "z"), "");
	cr_assert_str_eq(segue_json_get_text(value, "absent"), "");
	json_object_put(value);
}

Test(json, huge_numbers_are_the_nearest)
{
	struct json_object *value = parse("{\"n\":99999999999999999999999,\"r\":1e999,\"m\":-1}");

	cr_assert_eq(segue_json_get_unsigned(value, "n"), UINT64_MAX);
	cr_assert_eq(segue_json_get_unsigned(value, "r"), UINT64_MAX);
	cr_assert_eq(segue_json_get_unsigned(value, "m"), 0);
	json_object_put(value);
}

Test(json, refuses_what_is_not_json)
{
	static const char *const wrong[] = {"", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]",
		"{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "01", "-", "+1",
		".5", "1e", "1e+", "0x1", "nan", "tru", "truee", "nulL", "'a'", "\"", "\"a", "\"\\",
		"\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\x80\"", "[1]]", "1 1", "{}{}",
		"[1}", "{\"a\":1]", "\xef\xbb\xbf[]"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct json_object *value = NULL;
		int rc = segue_json_parse(wrong[i], &value);
		cr_assert_eq(rc, SEGUE_EPROTOCOL, "accepted: %s", wrong[i]);
		cr_assert_null(value);
		cr_assert(strstr(segue_error_detail(), "at byte"), "%s", segue_error_detail());
	}
}

Test(json, depth_is_bounded)
{
	static char text[200001];

	for (size_t depth = 1; depth <= 100000; depth = depth < 40 ? depth + 1 : 100 * depth) {
		struct json_object *value = NULL;
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		text[2 * depth] = '\0';
		int rc = segue_json_parse(text, &value);
		cr_assert_eq(rc, depth <= 32 ? 0 : SEGUE_EPROTOCOL);
		json_object_put(value);
	}
}

/* Siblings do not count as depth. */
Test(json, many_siblings)
{
	struct json_object *value =
		parse("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		      "[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]");

	cr_assert_eq(segue_json_count(value), 40);
	json_object_put(value);
}

/* ---- There and back ---- */

static uint64_t state;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void seed(void)
{
	const char *given = getenv("SEGUE_TEST_SEED");

	state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "test_json: SEGUE_TEST_SEED=%" PRIu64 "\n", state);
	state = state * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

/* Bytes in which quotes, escapes, controls and pieces of characters are frequent. */
static size_t draw_bytes(char out[64])
{
	static const char *const pieces[] = {"\"", "\\", "\xc3\xa9", "\xe2\x82", "\xf0\x9f\x98\x80",
		"\xed\xa0\x80", "\x7f", "u"};
	size_t size = 0, want = draw() % 40;

	while (size < want) {
		if (draw() % 2) {
			const char *piece = pieces[draw() % 8];
			memcpy(out + size, piece, strlen(piece));
			size += strlen(piece);
		} else {
			out[size++] = (char)draw();
		}
	}
	return size;
}

/* Text as it is; of a byte that is none, what a terminal is shown. */
Test(json, any_bytes_come_back)
{
	seed();
	for (int i = 0; i < 20000; i++) {
		struct segue_json json = {0};
		struct json_object *value;
		char bytes[64], expected[256], *text;
		size_t size = draw_bytes(bytes), length = 0;
		for (size_t at = 0; at < size;) {
			size_t step = segue_utf8_next(bytes + at, size - at);
			if (step == 0)
				length += (size_t)sprintf(
					expected + length, "\\x%02x", (unsigned char)bytes[at]);
			memcpy(expected + length, bytes + at, step);
			length += step;
			at += step ? step : 1;
		}
		segue_json_bytes(&json, NULL, bytes, size);
		cr_assert_eq(segue_json_take(&json, &text), 0);
		value = parse(text);
		cr_assert_eq((size_t)json_object_get_string_len(value), length, "%s", text);
		cr_assert(memcmp(json_object_get_string(value), expected, length) == 0, "%s", text);
		json_object_put(value);
		free(text);
	}
}

Test(json, any_real_comes_back)
{
	seed();
	for (int i = 0; i < 20000; i++) {
		struct segue_json json = {0};
		uint64_t bits = draw();
		double wide;
		float narrow;
		char *text;
		memcpy(&wide, &bits, sizeof(wide));
		memcpy(&narrow, &bits, sizeof(narrow));
		if (!isfinite(wide) || !isfinite(narrow))
			continue;
		segue_json_real(&json, NULL, wide, 17);
		cr_assert_eq(segue_json_take(&json, &text), 0);
		cr_assert(strtod(text, NULL) == wide, "%s", text);
		free(text);
		segue_json_real(&json, NULL, (double)narrow, 9);
		cr_assert_eq(segue_json_take(&json, &text), 0);
		cr_assert(strtof(text, NULL) == narrow, "%s", text);
		free(text);
	}
}

/* Damaged text is refused or read, never more (the sanitizers look on). */
Test(json, mutated_text)
{
	static const char sound[] =
		"{\"a\":[1,-2.5e3,true,null,\"x\\u00e9\\ud83d\\ude00\\n\"],\"b\":{\"c\":{}}}";

	seed();
	for (int i = 0; i < 50000; i++) {
		struct json_object *value = NULL;
		size_t size = draw() % sizeof(sound);
		char *text = malloc(size + 1); /* no byte more: the sanitizer sees a step beyond */
		memcpy(text, sound, size);
		text[size] = '\0';
		for (uint64_t n = draw() % 3; n > 0 && size > 0; n--)
			text[draw() % size] = draw() % 2 ? (char)draw() : sound[draw() % 60];
		int rc = segue_json_parse(text, &value);
		cr_assert(rc == 0 || rc == SEGUE_EPROTOCOL);
		json_object_put(value);
		free(text);
	}
}
