/* JSON: what is written, what is read, what is refused; random bytes go there and back. */
#include "report/json.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segue/segue.h"

static struct segue_json_value *parse(const char *text)
{
	struct segue_json_value *value = NULL;
	int rc = segue_json_parse(text, strlen(text), &value);

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
	struct segue_json_value *value;
	char *text;

	segue_json_begin(&json, NULL, '[');
	for (unsigned i = 0; i < 100000; i++)
		segue_json_unsigned(&json, NULL, i);
	segue_json_end(&json, ']');
	cr_assert_eq(segue_json_take(&json, &text), 0);
	value = parse(text);
	free(text);
	cr_assert_eq(value->count, 100000);
	unsigned expected = 0;
	for (struct segue_json_value *each = value->first; each; each = each->next, expected++)
		cr_assert_eq(strtoul(each->text, NULL, 10), expected);
	segue_json_destroy(value);
}

/* ---- Reader ---- */

Test(json, reads_members)
{
	struct segue_json_value *value = parse(
		" { \"a\" : [ 1 , -2.5e+3 , true , null ] ,\n\"b\":{\"c\":\"x\\u00e9\\ud83d\\ude00"
		"\\/\\b\\f\\n\\r\\t\\\"\\\\\"} ,\t\"n\":18446744073709551615,\"t\":true}\r\n");
	const struct segue_json_value *list = segue_json_get(value, "a");

	cr_assert_eq(value->type, SEGUE_JSON_OBJECT);
	cr_assert_eq(value->count, 4);
	cr_assert_eq(list->type, SEGUE_JSON_ARRAY);
	cr_assert_eq(list->count, 4);
	cr_assert_str_eq(list->first->text, "1");
	cr_assert_str_eq(list->first->next->text, "-2.5e+3");
	cr_assert_eq(list->first->next->next->type, SEGUE_JSON_BOOL);
	cr_assert_eq(list->first->next->next->next->type, SEGUE_JSON_NULL);
	cr_assert_str_eq(segue_json_get_text(segue_json_get(value, "b"), "c"),
		"x\xc3\xa9\xf0\x9f\x98\x80/\b\f\n\r\t\"\\");
	cr_assert_eq(segue_json_get_unsigned(value, "n"), UINT64_MAX);
	cr_assert(segue_json_get_bool(value, "t"));
	segue_json_destroy(value);
}

Test(json, absent_members_are_empty)
{
	struct segue_json_value *value = parse("{\"a\":[],\"s\":\"7\"}");

	cr_assert_null(segue_json_get(value, "b"));
	cr_assert_null(segue_json_get(NULL, "b"));
	cr_assert_null(segue_json_get(segue_json_get(value, "a"), "b"));
	cr_assert_str_eq(segue_json_get_text(value, "a"), "");
	cr_assert_str_eq(segue_json_get_text(value, "b"), "");
	cr_assert_eq(segue_json_get_unsigned(value, "s"), 0);
	cr_assert_not(segue_json_get_bool(value, "s"));
	segue_json_destroy(value);
}

Test(json, refuses_what_is_not_json)
{
	static const char *const wrong[] = {"", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]",
		"{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "01", "-", "+1",
		".5", "1.", "1e", "1e+", "0x1", "nan", "Infinity", "tru", "truee", "nulL", "'a'",
		"\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"",
		"\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\udc7f\"", "\"\\udd00\"", "\"\x80\"",
		"\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"a\nb\"", "\"\x01\"", "[1]]", "1 1", "{}{}",
		"[1}", "{\"a\":1]", "\xef\xbb\xbf[]"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct segue_json_value *value = NULL;
		int rc = segue_json_parse(wrong[i], strlen(wrong[i]), &value);
		cr_assert_eq(rc, SEGUE_EPROTOCOL, "accepted: %s", wrong[i]);
		cr_assert_null(value);
		cr_assert(strstr(segue_error_detail(), "at byte"), "%s", segue_error_detail());
	}
	cr_assert_eq(segue_json_parse("1\0", 2, &(struct segue_json_value *){NULL}),
		SEGUE_EPROTOCOL, "a NUL after the value");
}

Test(json, depth_is_bounded)
{
	char text[80];

	for (int depth = 1; depth <= 40; depth++) {
		struct segue_json_value *value = NULL;
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		int rc = segue_json_parse(text, 2 * (size_t)depth, &value);
		cr_assert_eq(rc, depth <= 32 ? 0 : SEGUE_EPROTOCOL);
		segue_json_destroy(value);
	}
}

/* Siblings do not count as depth. */
Test(json, many_siblings)
{
	struct segue_json_value *value =
		parse("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		      "[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]");

	cr_assert_eq(value->count, 40);
	segue_json_destroy(value);
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
	fprintf(stderr, "test_json: SEGUE_TEST_SEED=%llu\n", (unsigned long long)state);
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

Test(json, any_bytes_come_back)
{
	seed();
	for (int i = 0; i < 20000; i++) {
		struct segue_json json = {0};
		struct segue_json_value *value;
		char bytes[64], *text;
		size_t size = draw_bytes(bytes);
		segue_json_bytes(&json, NULL, bytes, size);
		cr_assert_eq(segue_json_take(&json, &text), 0);
		value = parse(text);
		cr_assert_eq(value->size, size, "%s", text);
		cr_assert(memcmp(value->text, bytes, size) == 0, "%s", text);
		segue_json_destroy(value);
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
		struct segue_json_value *value = NULL;
		size_t size = draw() % sizeof(sound);
		char *text = malloc(size + 1); /* no byte more: the sanitizer sees a step beyond */
		memcpy(text, sound, size);
		for (uint64_t n = draw() % 3; n > 0 && size > 0; n--)
			text[draw() % size] = draw() % 2 ? (char)draw() : sound[draw() % 60];
		int rc = segue_json_parse(text, size, &value);
		cr_assert(rc == 0 || rc == SEGUE_EPROTOCOL);
		segue_json_destroy(value);
		free(text);
	}
}
