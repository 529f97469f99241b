/* Logs in the store: records of what is known of them, and of what was closed. */
#include "store/logs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/wire.h"

#define KNOWN "known"
#define END   "end"

enum { PREFIX = sizeof("log.00000000.") - 1, KEY = PREFIX + sizeof(KNOWN) };

static void put_prefix(uint32_t stream, char key[KEY])
{
	snprintf(key, KEY, "log.%08" PRIx32 ".", stream);
}

bool segue_logs_is_known(enum segue_table table, const void *key, size_t key_size, uint32_t *stream)
{
	char text[KEY + 1] = "", again[KEY];

	if (table != SEGUE_TABLE_META || key_size != PREFIX + strlen(KNOWN))
		return false;
	memcpy(text, key, key_size);
	*stream = (uint32_t)strtoul(text + strlen("log."), NULL, 16);
	put_prefix(*stream, again);
	return memcmp(text, again, PREFIX) == 0 && strcmp(text + PREFIX, KNOWN) == 0;
}

static int put(struct segue_ops *ops, uint32_t stream, const char *name, void *value, size_t size)
{
	char key[KEY];

	put_prefix(stream, key);
	strcpy(key + PREFIX, name);
	return segue_ops_put(ops, SEGUE_TABLE_META, key, strlen(key), value, size);
}

int segue_logs_put_known(
	struct segue_ops *ops, uint32_t stream, const struct segue_log_known *known)
{
	void *value;
	size_t size;
	int rc = segue_log_known_pack(known, &value, &size);

	return rc ? rc : put(ops, stream, KNOWN, value, size);
}

int segue_logs_put_end(struct segue_ops *ops, uint32_t stream, const struct segue_log_end *end)
{
	void *value;
	size_t size;
	int rc = segue_log_end_pack(end, &value, &size);

	return rc ? rc : put(ops, stream, END, value, size);
}

int segue_logs_remove(struct segue_ops *ops, uint32_t stream)
{
	char key[KEY];

	put_prefix(stream, key);
	return segue_ops_remove_prefix(ops, SEGUE_TABLE_META, key, PREFIX);
}

void segue_stored_log_finish(struct segue_stored_log *log)
{
	segue_log_end_finish(&log->end);
}

struct loading {
	struct segue_stored_log *out;
	bool known;
};

static int take(void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	const char *name = (const char *)key + PREFIX;
	size_t size = key_size - PREFIX;
	struct loading *loading = arg;

	if (size == strlen(KNOWN) && memcmp(name, KNOWN, size) == 0) {
		loading->known = true;
		return segue_log_known_unpack(value, value_size, &loading->out->known);
	}
	if (size == strlen(END) && memcmp(name, END, size) == 0) {
		loading->out->some = true;
		return segue_log_end_unpack(value, value_size, &loading->out->end);
	}
	return segue_fail(SEGUE_EPROTOCOL,
		"there is '%.*s', which this version of segue does not know: use the one that "
		"wrote it, or a later one",
		(int)size, name);
}

/* A log is synced to its end before that is stored. */
static int check(const struct loading *loading)
{
	const struct segue_stored_log *log = loading->out;

	if (!loading->known)
		return segue_fail(SEGUE_EPROTOCOL, "it has an end, and nothing else");
	if (log->some && log->end.count > log->known.synced.number)
		return segue_fail(SEGUE_EPROTOCOL,
			"something was closed after %" PRIu64 " sequences, and %" PRIu64
			" are known",
			log->end.count, log->known.synced.number);
	return 0;
}

int segue_logs_load(struct segue_store *store, uint32_t stream, struct segue_stored_log *out)
{
	struct loading loading = {.out = out};
	char key[KEY];

	*out = (struct segue_stored_log){.some = false};
	put_prefix(stream, key);
	int rc = segue_store_scan(store, SEGUE_TABLE_META, key, PREFIX, take, NULL, &loading);
	if (!rc && !loading.known && !out->some)
		return segue_fail(SEGUE_ENOTFOUND, "the stream has no log");
	if (!rc)
		rc = check(&loading);
	if (rc == SEGUE_EPROTOCOL || rc == SEGUE_EFORMAT)
		rc = segue_fail_within(segue_as_damage(rc, SEGUE_ESTORE),
			"what the store has of the log of stream %" PRIu32
			" cannot be read ('segue verify' says whether the store is damaged)",
			stream);
	if (rc)
		segue_stored_log_finish(out);
	return rc;
}
