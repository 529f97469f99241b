/*
 * Tests of error codes and the thread's detail message.
 */
#include "core/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

/* The codes as they are in the world: written down again, since they must never change. */
static const struct {
	int code;
	const char *name;
} known[] = {
	{-1, "EINVAL"},
	{-2, "ENOMEM"},
	{-3, "ESYSTEM"},
	{-4, "EPROTOCOL"},
	{-5, "EVERSION"},
	{-6, "EGONE"},
	{-7, "EBUSY"},
	{-8, "EFENCED"},
	{-9, "ESPEC"},
	{-10, "ESTART"},
	{-11, "ESOURCE"},
	{-12, "EDATA"},
	{-13, "ECHANGED"},
	{-14, "ESTATE"},
	{-15, "EUNSAVED"},
	{-16, "ECOMMITTED"},
	{-17, "EHELD"},
	{-18, "EEND"},
	{-19, "ETIMEOUT"},
	{-20, "EFORKED"},
	{-21, "ESTORE"},
	{-22, "EFORMAT"},
	{-23, "EREADONLY"},
	{-24, "ENOSPACE"},
	{-25, "ETOKEN"},
	{-26, "ESTALE"},
	{-27, "ELIMIT"},
	{-28, "ENOTFOUND"},
	{-29, "EINTERRUPTED"},
	{-30, "EROUND"},
	{-31, "EMOVED"},
	{-32, "EREPLICA"},
};
#define KNOWN (int)(sizeof(known) / sizeof(known[0]))

Test(error, codes_keep_their_numbers)
{
	for (int i = 0; i < KNOWN; i++)
		cr_assert_str_eq(segue_error_name(known[i].code), known[i].name);
	cr_assert_str_eq(segue_error_name(0), "OK");
	cr_assert_str_eq(segue_error_name(-KNOWN - 1), "?", "a code that this test does not know");
	cr_assert_str_eq(segue_error_name(1), "?");
}

Test(error, every_code_has_its_own_text)
{
	cr_assert_str_eq(segue_strerror(0), "no error");
	cr_assert_str_eq(segue_strerror(SEGUE_EFENCED), "the lease has passed to another holder");
	cr_assert_str_eq(segue_strerror(-1000), "unknown error");
	cr_assert_str_eq(segue_strerror(7), "unknown error");
	for (int i = 0; i < KNOWN; i++) {
		cr_assert_str_neq(segue_strerror(known[i].code), "unknown error");
		for (int k = 0; k < i; k++)
			cr_assert_str_neq(
				segue_strerror(known[i].code), segue_strerror(known[k].code));
	}
}

Test(error, detail_is_empty_at_first)
{
	cr_assert_str_eq(segue_error_detail(), "");
	cr_assert_eq(segue_fail(SEGUE_EDATA, "file %s, offset %d", "a", 7), SEGUE_EDATA);
	cr_assert_str_eq(segue_error_detail(), "file a, offset 7");
}

Test(error, errno_is_added_and_kept)
{
	errno = ENOENT;
	cr_assert_eq(segue_fail_errno(SEGUE_ESOURCE, "%s", "x.tfrecord"), SEGUE_ESOURCE);
	cr_assert_eq(errno, ENOENT);
	cr_assert_str_eq(segue_error_detail(), "x.tfrecord: No such file or directory");
}

Test(error, message_grows_on_the_way_up)
{
	segue_fail(SEGUE_EDATA, "bad CRC");
	cr_assert_eq(segue_fail_within(SEGUE_ESOURCE, "record %d", 3), SEGUE_ESOURCE);
	segue_fail_within(SEGUE_ESOURCE, "stream \"%s\"", "train");
	cr_assert_str_eq(segue_error_detail(), "stream \"train\": record 3: bad CRC");
}

Test(error, own_message_may_be_an_argument)
{
	segue_fail(SEGUE_EDATA, "inner");
	segue_fail(SEGUE_EDATA, "[%s] and [%s]", segue_error_detail(), segue_error_detail());
	cr_assert_str_eq(segue_error_detail(), "[inner] and [inner]");
}

Test(error, long_messages_are_cut_with_a_sign)
{
	static char long_text[3 * SEGUE_DETAIL_MAX];
	const char *detail;

	memset(long_text, 'x', sizeof(long_text) - 1);
	segue_fail(SEGUE_EINVAL, "%s", long_text);
	detail = segue_error_detail();
	cr_assert_eq(strlen(detail), SEGUE_DETAIL_MAX - 1);
	cr_assert_str_eq(detail + strlen(detail) - 4, "x...");
	segue_fail_within(SEGUE_EINVAL, "stream \"%s\"", "train");
	detail = segue_error_detail();
	cr_assert_eq(strncmp(detail, "stream \"train\": xxx", 19), 0);
	cr_assert_str_eq(detail + strlen(detail) - 4, "x...");
}

/* Whatever the place of the cut, no half of a character is left before the dots. */
Test(error, cut_does_not_split_a_character)
{
	static char text[2 * SEGUE_DETAIL_MAX];

	for (size_t lead = 0; lead < 4; lead++) {
		const char *detail;
		size_t length;

		memset(text, 'a', lead);
		for (size_t i = lead; i + 3 < sizeof(text); i += 3)
			memcpy(text + i, "\xe2\x82\xac", 4); /* the euro sign */
		segue_fail(SEGUE_EINVAL, "%s", text);
		detail = segue_error_detail();
		length = strlen(detail);
		cr_assert_gt(length, SEGUE_DETAIL_MAX - 8);
		cr_assert_str_eq(detail + length - 6, "\xe2\x82\xac...", "lead %zu", lead);
	}
}

Test(error, longest_message_that_fits_is_whole)
{
	static char text[SEGUE_DETAIL_MAX];

	memset(text, 'y', sizeof(text) - 1);
	segue_fail(SEGUE_EINVAL, "%s", text);
	cr_assert_str_eq(segue_error_detail(), text);
}

Test(error, what_is_no_directory_is_named)
{
	static const char *const paths[] = {"/etc/passwd", "/etc/passwd/", "/etc/passwd/a/b"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		cr_assert_eq(segue_fail_no_directory(paths[i]), SEGUE_ESYSTEM);
		cr_assert_str_eq(
			segue_error_detail(), "/etc/passwd is no directory: name another place");
	}
	segue_fail_no_directory("/etc"); /* it was replaced since */
	cr_assert_str_eq(segue_error_detail(), "/etc: Not a directory");
	segue_fail_no_directory("");
	cr_assert_str_eq(segue_error_detail(), ": Not a directory");
}

static void *other_thread(void *arg)
{
	(void)arg;
	cr_assert_str_eq(segue_error_detail(), "");
	segue_fail(SEGUE_EINVAL, "theirs");
	return NULL;
}

Test(error, detail_belongs_to_the_thread)
{
	pthread_t thread;

	segue_fail(SEGUE_EINVAL, "ours");
	pthread_create(&thread, NULL, other_thread, NULL);
	pthread_join(thread, NULL);
	cr_assert_str_eq(segue_error_detail(), "ours");
}

Test(error, version_and_free)
{
	cr_assert_str_eq(segue_version(), SEGUE_VERSION_STRING);
	segue_free(NULL);
	segue_free(malloc(3));
}
