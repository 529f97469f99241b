/* A store as one file. */
#include "store/dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "os/file.h"

#define MAGIC "SEGUEBAK"

enum {
	FORMAT = 2,
	HEAD = 24,
	REQUIRED = 16, /* where it lies in the head */
	HAS_FILES = 1, /* a bit of that */
	BLOCK_HEAD = 12,
	RECORD_HEAD = 8,
	END = 16,
	BLOCK_SIZE = 1 << 20, /* a block is written when it has so many bytes */
};

static void put_number(uint8_t *to, uint64_t number, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(number >> 8 * i);
}

static uint64_t get_number(const uint8_t *from, size_t size)
{
	uint64_t number = 0;

	for (size_t i = size; i-- > 0;)
		number = number << 8 | from[i];
	return number;
}

/* ---- Written ---- */

struct segue_dump {
	int fd;
	const char *name;
	uint8_t *block; /* room for its head, then records */
	size_t used, room;
	uint64_t records, bytes;
	bool has_files;
};

static int write_all(const struct segue_dump *dump, const uint8_t *bytes, size_t size)
{
	if (segue_file_write(dump->fd, bytes, size) < 0)
		return segue_fail_errno(
			errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
			"cannot write %s", dump->name);
	return 0;
}

/* The block begins anew. `size`: what its head says. */
static int write_block(struct segue_dump *dump, size_t size)
{
	put_number(dump->block, size, 4);
	put_number(
		dump->block + 4, XXH3_64bits(dump->block + BLOCK_HEAD, dump->used - BLOCK_HEAD), 8);
	int rc = write_all(dump, dump->block, dump->used);
	dump->used = BLOCK_HEAD;
	return rc;
}

static int make_room(struct segue_dump *dump, size_t more)
{
	if (dump->room >= dump->used + more)
		return 0;
	uint8_t *grown = realloc(dump->block, dump->used + more);
	if (!grown)
		return segue_fail(
			SEGUE_ENOMEM, "no memory for a backup (%zu bytes)", dump->used + more);
	dump->block = grown;
	dump->room = dump->used + more;
	return 0;
}

int segue_dump_create(int fd, const char *name, struct segue_dump **out)
{
	struct segue_dump *dump = calloc(1, sizeof(*dump));
	uint8_t head[HEAD] = MAGIC;

	if (!dump)
		return segue_fail(SEGUE_ENOMEM, "no memory for a backup");
	*dump = (struct segue_dump){.fd = fd, .name = name, .used = BLOCK_HEAD};
	put_number(head + 8, FORMAT, 4);
	put_number(head + 12, SEGUE_STORE_FORMAT, 4);
	int rc = make_room(dump, BLOCK_SIZE);
	if (!rc)
		rc = write_all(dump, head, sizeof(head));
	if (rc)
		segue_dump_destroy(dump);
	else
		*out = dump;
	return rc;
}

int segue_dump_put(struct segue_dump *dump, enum segue_table table, const void *key,
	size_t key_size, const void *value, size_t value_size)
{
	int rc = make_room(dump, RECORD_HEAD + key_size + value_size);

	if (rc)
		return rc;
	uint8_t *at = dump->block + dump->used;
	put_number(at, table, 2);
	put_number(at + 2, key_size, 2);
	put_number(at + 4, value_size, 4);
	at = mempcpy(at + RECORD_HEAD, key, key_size);
	if (value_size)
		memcpy(at, value, value_size);
	dump->used += RECORD_HEAD + key_size + value_size;
	dump->records++;
	dump->bytes += value_size;
	dump->has_files |= table == SEGUE_DUMP_FILE;
	return dump->used < BLOCK_SIZE ? 0 : write_block(dump, dump->used - BLOCK_HEAD);
}

/* Who does not know of files is told by the head, which was written before there were any. */
static int write_required(const struct segue_dump *dump)
{
	uint8_t required[8];

	put_number(required, HAS_FILES, sizeof(required));
	if (pwrite(dump->fd, required, sizeof(required), REQUIRED) != sizeof(required))
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot write %s", dump->name);
	return 0;
}

int segue_dump_end(struct segue_dump *dump)
{
	int rc = dump->used > BLOCK_HEAD ? write_block(dump, dump->used - BLOCK_HEAD) : 0;

	if (!rc && dump->has_files)
		rc = write_required(dump);
	if (rc)
		return rc;
	put_number(dump->block + BLOCK_HEAD, dump->records, 8);
	put_number(dump->block + BLOCK_HEAD + 8, dump->bytes, 8);
	dump->used = BLOCK_HEAD + END;
	rc = write_block(dump, 0);
	if (!rc && fsync(dump->fd) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot sync %s", dump->name);
	return rc;
}

void segue_dump_destroy(struct segue_dump *dump)
{
	if (dump)
		free(dump->block);
	free(dump);
}

/* ---- Read ---- */

struct reading {
	int fd;
	const char *name;
	const struct segue_store_inspection *how;
	struct segue_store_verified *verified;
	uint64_t offset, size; /* read so far, and in all */
	uint64_t records, bytes;
	uint8_t *block;
	size_t room;
};

static int fail_damaged(const struct reading *reading, uint64_t offset, const char *why)
{
	return segue_fail(
		SEGUE_ESTORE, "%s: damaged at byte %" PRIu64 ": %s", reading->name, offset, why);
}

static int read_all(struct reading *reading, uint8_t *to, size_t size)
{
	while (size > 0) {
		ssize_t got = pread(reading->fd, to, size, (off_t)reading->offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return segue_fail_errno(SEGUE_ESYSTEM, "cannot read %s at byte %" PRIu64,
				reading->name, reading->offset);
		if (got == 0)
			return fail_damaged(reading, reading->offset, "it is cut short here");
		to += got;
		size -= (size_t)got;
		reading->offset += (uint64_t)got;
	}
	return 0;
}

static int read_head(struct reading *reading)
{
	uint8_t head[HEAD];
	int rc = reading->size < HEAD ? SEGUE_EINVAL : read_all(reading, head, sizeof(head));

	if (rc == SEGUE_EINVAL || (!rc && memcmp(head, MAGIC, 8) != 0))
		return segue_fail(SEGUE_EINVAL,
			"%s is no backup of segue: give a directory that 'segue backup' made, or a "
			"file of 'segue backup --portable'",
			reading->name);
	if (!rc && get_number(head + 8, 4) != FORMAT)
		rc = segue_fail(SEGUE_EFORMAT,
			"%s is a backup of format %" PRIu64 ", and this version of segue reads "
			"format %d: use the version that wrote it, or a later one",
			reading->name, get_number(head + 8, 4), FORMAT);
	if (!rc && get_number(head + 12, 4) != SEGUE_STORE_FORMAT)
		rc = segue_fail(SEGUE_EFORMAT,
			"%s is the backup of a store of format %" PRIu64
			", and this version of segue has stores of format %d: restore it with the "
			"version that wrote it",
			reading->name, get_number(head + 12, 4), SEGUE_STORE_FORMAT);
	return rc ? rc
		  : segue_required_check(
			    reading->name, get_number(head + REQUIRED, 8) & ~(uint64_t)HAS_FILES);
}

/* The bytes of a block, which are as they were written. */
static int read_block(struct reading *reading, size_t size, uint64_t sum)
{
	uint64_t begin = reading->offset;

	if (size > reading->size - begin)
		return fail_damaged(reading, begin, "it is cut short, or a size is wrong");
	if (size > reading->room) {
		free(reading->block);
		reading->block = malloc(size);
		reading->room = reading->block ? size : 0;
	}
	if (!reading->block)
		return segue_fail(SEGUE_ENOMEM, "no memory for a backup (%zu bytes)", size);
	int rc = read_all(reading, reading->block, size);
	if (!rc && XXH3_64bits(reading->block, size) != sum)
		rc = fail_damaged(reading, begin, "a checksum is wrong");
	return rc;
}

static int visit_records(struct reading *reading, size_t size)
{
	const uint8_t *at = reading->block, *end = at + size;
	uint64_t begin = reading->offset - size;

	while (at < end) {
		uint64_t offset = begin + (uint64_t)(at - reading->block);
		if (end - at < RECORD_HEAD)
			return fail_damaged(reading, offset, "half a value");
		uint64_t table = get_number(at, 2), key_size = get_number(at + 2, 2);
		uint64_t value_size = get_number(at + 4, 4);
		at += RECORD_HEAD;
		if (table < SEGUE_TABLE_META || table > SEGUE_DUMP_FILE || key_size == 0 ||
			key_size > SEGUE_STORE_KEY_MAX ||
			key_size + value_size > (uint64_t)(end - at))
			return fail_damaged(reading, offset, "no value can be like that");
		int rc = reading->how->visit
				 ? reading->how->visit(reading->how->arg, (enum segue_table)table,
					   at, key_size, at + key_size, value_size)
				 : 0;
		if (rc)
			return rc;
		at += key_size + value_size;
		reading->records++;
		reading->bytes += value_size;
		if (table == SEGUE_DUMP_FILE)
			continue;
		reading->verified->values++;
		reading->verified->bytes += value_size;
	}
	return 0;
}

static int check_end(const struct reading *reading)
{
	if (get_number(reading->block, 8) != reading->records ||
		get_number(reading->block + 8, 8) != reading->bytes)
		return fail_damaged(reading, reading->offset - END, "values are missing");
	return reading->offset == reading->size
		       ? 0
		       : fail_damaged(reading, reading->offset, "something comes after its end");
}

static int read_blocks(struct reading *reading)
{
	uint8_t head[BLOCK_HEAD];

	for (;;) {
		int rc = read_all(reading, head, sizeof(head));
		if (rc)
			return rc;
		size_t size = get_number(head, 4);
		rc = read_block(reading, size ? size : END, get_number(head + 4, 8));
		if (rc)
			return rc;
		if (size == 0)
			return check_end(reading);
		rc = visit_records(reading, size);
		if (rc)
			return rc;
		if (reading->how->progress)
			reading->how->progress(reading->how->arg, "reading the backup",
				reading->offset, reading->size);
	}
}

int segue_dump_read(int fd, const char *name, const struct segue_store_inspection *how,
	struct segue_store_verified *verified)
{
	struct reading reading = {.fd = fd, .name = name, .how = how, .verified = verified};
	struct stat info;

	*verified = (struct segue_store_verified){0};
	if (fstat(fd, &info) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s", name);
	reading.size = (uint64_t)info.st_size;
	int rc = read_head(&reading);
	if (!rc)
		rc = read_blocks(&reading);
	free(reading.block);
	return rc;
}
