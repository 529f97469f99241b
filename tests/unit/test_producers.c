/* Tests of who inserts into a log: names, sessions, serials, acknowledgements, ends. */
#include "source/log/producers.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct segue_producers producers;

static void begin(uint32_t expected)
{
	const struct segue_seqlog nothing = {0};

	cr_assert_eq(segue_producers_init(&producers, &nothing, 0, NULL, expected), 0);
}

static void end(void)
{
	segue_producers_finish(&producers);
}

TestSuite(producers, .fini = end);

static bool says(const char *words)
{
	return strstr(segue_error_detail(), words);
}

static struct segue_producer_asked asked_for(const char *name, uint8_t token, bool takeover)
{
	return (struct segue_producer_asked){
		.name = name, .name_size = strlen(name), .token = {token}, .takeover = takeover};
}

static int open_name(const char *name, uint8_t token, bool takeover, uint64_t *session)
{
	const struct segue_producer_asked asked = asked_for(name, token, takeover);
	uint64_t serial;

	return segue_producers_open(&producers, &asked, session, &serial);
}

static uint64_t must_open(const char *name)
{
	uint64_t session;

	cr_assert_eq(open_name(name, 1, false, &session), 0, "%s", segue_error_detail());
	return session;
}

static int insert(uint64_t session, uint64_t serial)
{
	int rc = segue_producers_offer(&producers, session, serial);

	if (rc)
		return rc;
	cr_assert_eq(segue_producers_reserve(&producers), 0);
	for (uint32_t i = 0; i < producers.count; i++)
		if (producers.producer[i].session == session) {
			const char *name = producers.producer[i].name;

			segue_producers_accepted(&producers, name, strlen(name), producers.next);
			return 0;
		}
	cr_assert_fail();
	return 0;
}

/* What sessions were told, by session. */
static uint64_t told[64];

static void acknowledge(void *arg, uint64_t session, uint64_t serial)
{
	(void)arg;
	cr_assert(session < 64 && serial > told[session]);
	told[session] = serial;
}

static void durable(uint64_t count)
{
	segue_producers_durable(&producers, count, acknowledge, NULL);
}

static int store(void)
{
	struct segue_log_end what;
	int rc = segue_producers_unstored(&producers, &what);

	if (rc == 1) {
		segue_producers_stored(&producers, &what);
		segue_log_end_finish(&what);
	}
	return rc;
}

Test(producers, each_serial_once)
{
	begin(0);
	uint64_t a = must_open("a"), b = must_open("b");

	cr_expect_eq(insert(a, 2), SEGUE_EINVAL);
	cr_expect(says("serial 2 does not follow 0"), "%s", segue_error_detail());
	cr_expect_eq(insert(a, 0), SEGUE_EINVAL);
	cr_expect_eq(insert(a, 1), 0);
	cr_expect_eq(insert(a, 1), SEGUE_PRODUCERS_AGAIN);
	cr_expect_eq(insert(b, 1), 0);
	cr_expect_eq(insert(a, 2), 0);
	cr_expect_eq(insert(a, 4), SEGUE_EINVAL);
	cr_expect_eq(insert(b, 2), 0);
	cr_expect_eq(producers.next, 4);
}

Test(producers, told_what_is_durable)
{
	begin(0);
	uint64_t a = must_open("a"), b = must_open("b");

	for (uint64_t serial = 1; serial <= 300; serial++) {
		cr_assert_eq(insert(a, serial), 0);
		if (serial % 3 == 0)
			cr_assert_eq(insert(b, serial / 3), 0);
	}
	durable(0);
	cr_expect(told[a] == 0 && told[b] == 0);
	durable(2);
	cr_expect(told[a] == 2 && told[b] == 0);
	durable(4);
	cr_expect(told[a] == 3 && told[b] == 1);
	cr_expect_eq(segue_producers_acknowledged(&producers, a), 3);
	durable(400);
	cr_expect(told[a] == 300 && told[b] == 100);
	cr_assert_eq(insert(b, 101), 0);
	durable(401);
	cr_expect(told[a] == 300 && told[b] == 101);
}

Test(producers, a_name_has_one_session)
{
	begin(0);
	uint64_t first = must_open("a"), second, third;

	cr_assert_eq(insert(first, 1), 0);
	cr_expect_eq(open_name("a", 2, false, &second), SEGUE_EBUSY);
	cr_expect(says("producer 'a' is another's"), "%s", segue_error_detail());
	/* The same one comes back. */
	cr_assert_eq(open_name("a", 1, false, &second), 0);
	cr_expect_eq(insert(first, 2), SEGUE_EFENCED);
	cr_expect_eq(insert(second, 2), 0);
	/* Another takes over. */
	cr_assert_eq(open_name("a", 9, true, &third), 0);
	cr_expect_eq(insert(second, 3), SEGUE_EFENCED);
	cr_expect_eq(segue_producers_close(&producers, second), SEGUE_EFENCED);
	segue_producers_gone(&producers, second); /* late: the name is the third's */
	cr_expect_eq(open_name("a", 2, false, &second), SEGUE_EBUSY);
	cr_expect_eq(insert(third, 3), 0);
	segue_producers_gone(&producers, third);
	cr_expect_eq(insert(third, 4), SEGUE_EFENCED);
	cr_expect_eq(open_name("a", 2, false, &second), 0);
	cr_expect_eq(insert(second, 4), 0);
	/* Who is gone is told nothing. */
	durable(4);
	cr_expect(told[first] == 0 && told[third] == 0 && told[second] == 4);
}

/* A session learns what the ones before it inserted, acknowledged or not. */
Test(producers, resumed)
{
	begin(0);
	const struct segue_producer_asked asked = asked_for("a", 2, true);
	uint64_t first = must_open("a"), session, serial;

	cr_assert_eq(insert(first, 1), 0);
	cr_assert_eq(insert(first, 2), 0);
	durable(1);
	cr_assert_eq(segue_producers_open(&producers, &asked, &session, &serial), 0);
	cr_expect_eq(serial, 2);
	cr_expect_eq(segue_producers_acknowledged(&producers, session), 1);
	cr_expect_eq(insert(session, 2), SEGUE_PRODUCERS_AGAIN);
	durable(2);
	cr_expect_eq(told[session], 2);
}

Test(producers, begun_from_a_log)
{
	struct segue_seqlog log = {0};
	const struct segue_seqlog_stamp stamp = {
		.number = 4, .serial = 7, .producer = "old", .producer_size = 3};
	char closed[1][SEGUE_NAME_MAX + 1] = {"gone"};
	struct segue_log_end stored = {.count = 5, .closed = closed, .closed_count = 1};
	uint64_t session;

	cr_assert_eq(segue_seqlog_note(&log, &stamp), 0);
	cr_assert_eq(segue_producers_init(&producers, &log, 9, &stored, 0), 0);
	session = must_open("old");
	cr_expect_eq(segue_producers_acknowledged(&producers, session), 7);
	cr_expect_eq(insert(session, 7), SEGUE_PRODUCERS_AGAIN);
	cr_expect_eq(insert(session, 8), 0);
	cr_expect_eq(producers.next, 10);
	session = must_open("gone");
	cr_expect_eq(insert(session, 1), SEGUE_EEND);
	cr_expect(says("producer 'gone' was closed"), "%s", segue_error_detail());
	segue_producers_finish(&producers);
	stored.ended = true;
	cr_expect_eq(segue_producers_init(&producers, &log, 9, &stored, 0), SEGUE_ESTORE);
	cr_expect(says("ended after 5 sequences, and the log has 9"), "%s", segue_error_detail());
	cr_assert_eq(segue_producers_init(&producers, &log, 5, &stored, 0), 0);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSED);
	segue_seqlog_finish(&log);
}

Test(producers, the_input_ends)
{
	begin(0);
	uint64_t a = must_open("a"), session;

	cr_assert_eq(insert(a, 1), 0);
	cr_expect_eq(store(), 0, "nothing is to be stored");
	segue_producers_end(&producers);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSING);
	cr_expect_eq(insert(a, 2), SEGUE_EEND);
	cr_expect(says("the input has ended"), "%s", segue_error_detail());
	cr_expect_eq(insert(a, 1), SEGUE_PRODUCERS_AGAIN);
	cr_expect_eq(open_name("new", 1, false, &session), SEGUE_EEND);
	cr_expect_eq(store(), 1);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSED);
	segue_producers_end(&producers);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSED);
	cr_expect_eq(store(), 0);
	/* Who inserted before learns what became of it. */
	cr_expect_eq(open_name("a", 5, true, &session), 0);
	cr_expect_eq(insert(session, 1), SEGUE_PRODUCERS_AGAIN);
}

Test(producers, the_last_one_closes)
{
	begin(2);
	uint64_t a = must_open("a"), b = must_open("b");
	struct segue_log_end what;

	cr_assert_eq(segue_producers_close(&producers, a), 0);
	cr_expect_eq(segue_producers_closing(&producers, a), SEGUE_CLOSING_CLOSING);
	cr_expect_eq(insert(a, 1), SEGUE_EEND);
	cr_assert_eq(segue_producers_unstored(&producers, &what), 1);
	cr_expect(what.count == 0 && !what.ended && what.closed_count == 1);
	cr_expect_str_eq(what.closed[0], "a");
	/* While that is on its way, the other inserts and closes. */
	cr_assert_eq(insert(b, 1), 0);
	cr_assert_eq(segue_producers_close(&producers, b), 0);
	cr_assert_eq(segue_producers_close(&producers, b), 0);
	segue_producers_stored(&producers, &what);
	segue_log_end_finish(&what);
	cr_expect_eq(segue_producers_closing(&producers, a), SEGUE_CLOSING_CLOSED);
	cr_expect_eq(segue_producers_closing(&producers, b), SEGUE_CLOSING_CLOSING);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSING);
	cr_assert_eq(segue_producers_unstored(&producers, &what), 1);
	cr_expect(what.count == 1 && what.ended && what.closed_count == 2);
	segue_producers_stored(&producers, &what);
	segue_log_end_finish(&what);
	cr_expect_eq(segue_producers_closing(&producers, 0), SEGUE_CLOSING_CLOSED);
}

Test(producers, names_that_cannot_be)
{
	begin(0);
	uint64_t session, serial;
	char name[SEGUE_NAME_MAX + 2];
	struct segue_producer_asked asked = asked_for("", 1, false);

	cr_expect_eq(segue_producers_open(&producers, &asked, &session, &serial), SEGUE_EINVAL);
	memset(name, 'n', sizeof(name));
	asked.name = name;
	asked.name_size = sizeof(name) - 1;
	cr_expect_eq(segue_producers_open(&producers, &asked, &session, &serial), SEGUE_EINVAL);
	asked.name_size = (size_t)1 << 32 | 1;
	cr_expect_eq(segue_producers_open(&producers, &asked, &session, &serial), SEGUE_EINVAL);
	for (int i = 0; i < SEGUE_SEQLOG_PRODUCERS_MAX; i++) {
		snprintf(name, sizeof(name), "%d", i);
		must_open(name);
	}
	cr_expect_eq(open_name("one more", 1, false, &session), SEGUE_ELIMIT);
}
