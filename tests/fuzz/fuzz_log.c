/*
 * Fuzzes the opening of a log: its one file is what the input says. It opens, and all that it then
 * has can be read, goes on and opens again; or it is refused.
 *
 * If the first byte is odd, the checksums of head and headers are made right first, and numbers and
 * running hashes of entries (else nothing would get past them). For libFuzzer, or with replay_main.c
 * as a program that runs files.
 */
#include "source/log/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "logwork.h"
#include "tmpdir.h"
#include "core/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX + 40];

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void clean_up(void)
{
	segue_tmpdir_remove(&tmp);
}

static void set_up(void)
{
	if (dir[0])
		return;
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	segue_tmpdir_make(&tmp, "fuzz-log");
	segue_tmpdir_path(&tmp, "log", dir);
	snprintf(path, sizeof(path), "%s/%020d.segue", dir, 0);
	atexit(clean_up);
}

static bool seal(uint8_t *bytes, size_t have, uint32_t size)
{
	uint32_t crc;

	if (size < 64 || size > have)
		return false;
	crc = segue_crc32c(0, bytes, size - 4);
	memcpy(bytes + size - 4, &crc, 4);
	return true;
}

/* The entry at the beginning of the bytes: its stamp, then its checksum. Its size; 0: none. */
static uint64_t seal_entry(uint8_t *bytes, size_t have, uint64_t number, uint64_t hash[2])
{
	uint32_t header, key;
	uint64_t size;

	if (have < 128)
		return 0;
	memcpy(&header, bytes + 4, sizeof(header));
	memcpy(&size, bytes + 8, sizeof(size));
	memcpy(&key, bytes + 48, sizeof(key));
	if (key > have - 128 || size > have)
		return 0;
	memcpy(bytes + 56 + key, &number, sizeof(number));
	memcpy(bytes + 56 + key + 16, hash, 16);
	if (!seal(bytes, have, header))
		return 0;
	segue_seqlog_go_on(bytes, header, hash);
	return size;
}

static void seal_file(uint8_t *bytes, size_t size)
{
	uint64_t hash[2], entry;
	uint32_t head;
	size_t at;

	if (size < 64)
		return;
	memcpy(&head, bytes + 12, sizeof(head));
	if (!seal(bytes, size, head))
		return;
	segue_seqlog_begin((const uint8_t *)"fuzz-log-0123456", hash);
	at = head;
	for (uint64_t n = 0; at < size; n++, at += entry) {
		entry = seal_entry(bytes + at, size - at, n, hash);
		if (entry == 0)
			return;
	}
}

static void read_all(struct segue_log *log)
{
	struct segue_log_stand stand;
	struct segue_log_entry *entry;

	segue_log_look(log, &stand);
	for (uint64_t n = stand.first; n < stand.written.number; n++) {
		uint64_t hash[2];
		int rc = segue_log_read(log, n, &entry);

		/* Of a finished file the blocks were synced before its foot: reading checks them. */
		expect(rc == 0 || rc == SEGUE_EDATA);
		if (!rc)
			segue_log_entry_free(entry);
		expect(segue_log_hash(log, n, hash) == 0);
		expect(segue_log_bytes_from(log, n) > 0);
	}
}

/* It takes one more, and has that when it is opened again. */
static void go_on(
	struct segue_log *log, const struct segue_log_means *means, struct segue_log_known *known)
{
	const struct segue_logwork work = {.what = 1, .serial = 1, .producer = "one more"};
	struct segue_log_stand stand;
	uint64_t number;

	int rc = segue_logwork_append(log, &work, &number);
	expect(rc == 0 || rc == SEGUE_EINVAL || rc == SEGUE_ELIMIT);
	expect(segue_log_sync(log) == 0);
	segue_log_look(log, &stand);
	known->synced = stand.synced;
	segue_log_close(log);
	expect(segue_log_open(means, known, &log) == 0);
	segue_log_look(log, &stand);
	expect(stand.written.number == known->synced.number);
	segue_log_close(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct segue_log_means means = {
		.dir = dir, .fields = segue_logwork_fields, .count = SEGUE_LOGWORK_FIELDS};
	struct segue_log_known known = {0};
	struct segue_log *log;

	if (size == 0)
		return 0;
	set_up();
	memcpy(known.id, "fuzz-log-0123456", sizeof(known.id));
	segue_seqlog_begin(known.id, known.synced.hash);
	segue_tmpdir_remove_path(dir);
	expect(segue_log_create(&means, known.id, &log) == 0);
	segue_log_close(log);

	uint8_t *bytes = malloc(size);
	expect(bytes != NULL);
	memcpy(bytes, data + 1, size - 1);
	if (data[0] & 1)
		seal_file(bytes, size - 1);
	FILE *file = fopen(path, "wbe");
	expect(file && fwrite(bytes, 1, size - 1, file) == size - 1);
	fclose(file);
	free(bytes);
	int rc = segue_log_open(&means, &known, &log);
	expect(rc == 0 || rc == SEGUE_ESTORE || rc == SEGUE_EFORMAT);
	if (rc)
		return 0;
	read_all(log);
	go_on(log, &means, &known);
	return 0;
}
