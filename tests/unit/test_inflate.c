/* Inflating: all members, whole or not at all, every damage named, no disk filled up. */
#include "source/inflate.h"

#include "source/tfrecord/framing.h"
#include "tfwrite.h"
#include "tmpdir.h"

#include <fcntl.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct segue_tmpdir dir;
static char source[SEGUE_TMPDIR_MAX], target[SEGUE_TMPDIR_MAX];
static struct segue_tfbytes plain, packed;

/* Both ways to compress that are read. */
static void (*pack)(struct segue_tfbytes *to, const void *bytes, size_t size);
static const struct segue_packing *packing;

#define BOTH(name)                                                                                 \
	static void name(void);                                                                    \
	Test(inflate, name)                                                                        \
	{                                                                                          \
		name();                                                                            \
	}                                                                                          \
	Test(inflate_zlib, name)                                                                   \
	{                                                                                          \
		name();                                                                            \
	}                                                                                          \
	static void name(void)

static void setup(void)
{
	uint8_t data[3000];

	segue_tmpdir_make(&dir, "inflate");
	segue_tmpdir_path(&dir, "data.gz", source);
	segue_tmpdir_path(&dir, "data", target);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i % 251);
	for (size_t i = 0; i < 300; i++)
		segue_tfwrite_record(&plain, data, 10 * i);
	pack(&packed, plain.bytes, plain.size);
	packing = segue_packing_of(packed.bytes, packed.size);
	cr_assert_not_null(packing);
}

static void setup_gzip(void)
{
	pack = segue_tfwrite_gzip;
	setup();
	cr_assert_eq(packing->compression, SEGUE_COMPRESSION_GZIP);
}

static void setup_zlib(void)
{
	pack = segue_tfwrite_zlib;
	setup();
	cr_assert_eq(packing->compression, SEGUE_COMPRESSION_ZLIB);
}

static void teardown(void)
{
	segue_tfbytes_free(&plain);
	segue_tfbytes_free(&packed);
	segue_tmpdir_remove(&dir);
}

TestSuite(inflate, .init = setup_gzip, .fini = teardown);
TestSuite(inflate_zlib, .init = setup_zlib, .fini = teardown);

static int inflate(
	const char *from, const char *to, uint64_t keep_free, struct segue_progress *progress)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int rc = segue_inflate_file(
		in, from, packing, to, &segue_tfrecord_format, keep_free, progress);

	if (in >= 0)
		close(in);
	return rc;
}

/* Whether the target is a copy of what is in `source` now. */
static bool is_copy(struct segue_copy *copy)
{
	int in = open(source, O_RDONLY | O_CLOEXEC);
	bool is = segue_copy_look(target, in, copy);

	close(in);
	return is;
}

static int inflate_bytes(const void *bytes, size_t size, uint64_t keep_free)
{
	struct segue_progress progress = {.total = size};
	int rc;

	unlink(target);
	segue_tfwrite_file(source, bytes, size);
	rc = inflate(source, target, keep_free, &progress);
	if (rc == SEGUE_OK)
		cr_assert_eq(progress.done, size);
	return rc;
}

/* The target holds these bytes, and says so. */
static void check_target(const struct segue_tfbytes *expected)
{
	FILE *file = fopen(target, "rbe");
	uint8_t *bytes = malloc(expected->size + 1);
	struct segue_progress progress = {.total = expected->size};
	struct segue_copy copy;
	struct stat st;

	cr_assert_not_null(file);
	cr_assert(is_copy(&copy));
	cr_assert_eq(copy.size, expected->size);
	cr_assert_eq(fstat(fileno(file), &st), 0);
	cr_assert_eq(copy.stored, (uint64_t)st.st_size);
	cr_assert(segue_copy_is(fileno(file), &copy));
	cr_assert_eq(segue_copy_check(fileno(file), &copy, &progress), 1);
	cr_assert_eq(progress.done, expected->size);
	cr_assert_eq(fread(bytes, 1, expected->size, file), expected->size);
	cr_assert_eq(memcmp(bytes, expected->bytes, expected->size), 0);
	fclose(file);
	free(bytes);
}

/* Nothing but the source is in the directory: no half target, no temporary file. */
static void check_nothing_left(void)
{
	DIR *list = opendir(dir.root);
	struct dirent *entry;

	cr_assert_not_null(list);
	while ((entry = readdir(list)))
		cr_assert(entry->d_name[0] == '.' || strcmp(entry->d_name, "data.gz") == 0, "%s",
			entry->d_name);
	closedir(list);
}

static void refused(int rc, int code, const char *text)
{
	cr_assert_eq(rc, code, "%d %s", rc, segue_error_detail());
	cr_assert(strstr(segue_error_detail(), text), "'%s' is not in '%s'", text,
		segue_error_detail());
	cr_assert(strstr(segue_error_detail(), source), "%s", segue_error_detail());
	check_nothing_left();
}

BOTH(one_member)
{
	cr_assert_null(segue_packing_of(packed.bytes, 1));
	cr_assert_null(segue_packing_of(plain.bytes, plain.size));
	cr_assert_eq(
		inflate_bytes(packed.bytes, packed.size, 0), SEGUE_OK, "%s", segue_error_detail());
	check_target(&plain);
}

BOTH(several_members)
{
	struct segue_tfbytes all = {0}, twice = {0};

	for (size_t at = 0; at < plain.size; at += 70001)
		pack(&all, plain.bytes + at, plain.size - at < 70001 ? plain.size - at : 70001);
	pack(&all, "", 0);
	cr_assert_eq(inflate_bytes(all.bytes, all.size, 0), SEGUE_OK, "%s", segue_error_detail());
	check_target(&plain);
	segue_tfbytes_put(&twice, plain.bytes, plain.size);
	segue_tfbytes_put(&twice, plain.bytes, plain.size);
	segue_tfbytes_put(&all, packed.bytes, packed.size);
	cr_assert_eq(inflate_bytes(all.bytes, all.size, 0), SEGUE_OK);
	check_target(&twice);
	segue_tfbytes_free(&all);
	segue_tfbytes_free(&twice);
}

BOTH(cut_off_anywhere)
{
	for (size_t size = 0; size < packed.size; size += size < 40 ? 1 : 997)
		refused(inflate_bytes(packed.bytes, size, 0), SEGUE_EDATA, "cut off");
	for (size_t size = packed.size - 12; size < packed.size; size++)
		refused(inflate_bytes(packed.bytes, size, 0), SEGUE_EDATA, "cut off");
}

BOTH(bytes_after_the_end)
{
	static const char *const garbage[] = {"garbage", "g", "0123456789012345678901234567890"};
	char text[64];

	for (size_t i = 0; i < 3; i++) {
		size_t size = packed.size;
		int rc;

		segue_tfbytes_put(&packed, garbage[i], strlen(garbage[i]));
		rc = inflate_bytes(packed.bytes, packed.size, 0);
		cr_assert_eq(rc, SEGUE_EDATA);
		check_nothing_left();
		packed.size = size;
	}
	segue_tfbytes_put(&packed, garbage[2], 31);
	snprintf(text, sizeof(text), "bytes that are no %s follow its end", packing->name);
	refused(inflate_bytes(packed.bytes, packed.size, 0), SEGUE_EDATA, text);
}

/* Behind a sound header data are damaged data, also of a member that is not the first. */
BOTH(damage_where_a_second_member_begins)
{
	struct segue_tfbytes twice = {0};
	char text[64];

	segue_tfbytes_put(&twice, packed.bytes, packed.size);
	segue_tfbytes_put(&twice, packed.bytes, packed.size);
	twice.bytes[packed.size + (packing->compression == SEGUE_COMPRESSION_GZIP ? 10 : 2)] =
		0xff; /* no such block */
	snprintf(text, sizeof(text), "damaged %s data near byte", packing->name);
	refused(inflate_bytes(twice.bytes, twice.size, 0), SEGUE_EDATA, text);
	segue_tfbytes_free(&twice);
}

/* zlib checks header and trailer; a flip in the time or the system's number changes nothing. */
BOTH(flips)
{
	unsigned seed = 5;

	cr_log_info("seed %u", seed);
	srandom(seed);
	for (int turn = 0; turn < 300; turn++) {
		size_t byte = (size_t)random() % packed.size, bit = (size_t)random() % 8;
		int rc;

		if (packing->compression == SEGUE_COMPRESSION_GZIP && byte >= 3 && byte < 10)
			continue;
		packed.bytes[byte] ^= (uint8_t)(1 << bit);
		rc = inflate_bytes(packed.bytes, packed.size, 0);
		cr_assert_eq(rc, SEGUE_EDATA, "byte %zu bit %zu", byte, bit);
		check_nothing_left();
		packed.bytes[byte] ^= (uint8_t)(1 << bit);
	}
}

/* A small file that becomes a large one of zeros is stopped at its first bytes. */
BOTH(a_bomb_that_is_no_tfrecord)
{
	struct segue_tfbytes bomb = {0};
	size_t size = 64u << 20;
	uint8_t *zeros = calloc(1, size);

	pack(&bomb, zeros, size);
	cr_assert_lt(bomb.size, 100000);
	refused(inflate_bytes(bomb.bytes, bomb.size, 0), SEGUE_EDATA, "is no TFRecord file");
	segue_tfbytes_free(&bomb);
	bomb = (struct segue_tfbytes){0};
	pack(&bomb, "short", 5);
	refused(inflate_bytes(bomb.bytes, bomb.size, 0), SEGUE_EDATA, "is no TFRecord file");
	segue_tfbytes_free(&bomb);
	free(zeros);
}

BOTH(leaves_room_on_the_disk)
{
	refused(inflate_bytes(packed.bytes, packed.size, UINT64_C(1) << 62), SEGUE_ENOSPACE,
		"no room to inflate it");
}

BOTH(cannot_read_or_write)
{
	struct segue_progress progress = {.total = 1};
	char nowhere[SEGUE_TMPDIR_MAX];

	segue_tmpdir_path(&dir, "no/such/place", nowhere);
	cr_assert_eq(inflate(nowhere, target, 0, &progress), SEGUE_ESOURCE);
	segue_tfwrite_file(source, packed.bytes, packed.size);
	cr_assert_eq(inflate(source, nowhere, 0, &progress), SEGUE_ESYSTEM);
	cr_assert_eq(inflate(dir.root, target, 0, &progress), SEGUE_ESOURCE);
	check_nothing_left();
}

/* ---- What a copy proves ---------------------------------------------------------------------- */

BOTH(twice_compressed)
{
	struct segue_tfbytes twice = {0};
	char text[64];

	snprintf(text, sizeof(text), "compressed twice: what it inflates to is %s, not TFRecord",
		packing->name);
	pack(&twice, packed.bytes, packed.size);
	refused(inflate_bytes(twice.bytes, twice.size, 0), SEGUE_EDATA, text);
	segue_tfbytes_free(&twice);
}

/* Cut anywhere, also where a record ends: no copy. */
BOTH(a_copy_that_was_cut)
{
	struct segue_copy copy;
	struct stat st;

	cr_assert_eq(inflate_bytes(packed.bytes, packed.size, 0), SEGUE_OK);
	cr_assert_eq(stat(target, &st), 0);
	for (off_t size = st.st_size - 1; size >= 0; size -= size > 200 ? 9973 : 1) {
		cr_assert_eq(truncate(target, size > 0 ? size : 0), 0);
		cr_assert_not(is_copy(&copy), "%jd", (intmax_t)size);
	}
	unlink(target);
	cr_assert_not(is_copy(&copy));
}

static void flip_target(off_t at)
{
	int fd = open(target, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	cr_assert_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 4;
	cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static int check_copy(const struct segue_copy *copy, struct segue_progress *progress)
{
	int fd = segue_copy_open(target), rc = segue_copy_check(fd, copy, progress);

	if (fd >= 0)
		close(fd);
	return rc;
}

/* A flip in seal or table: no copy. In the data: seen when they are read. */
BOTH(a_copy_that_was_changed)
{
	struct segue_progress progress = {.total = 0};
	struct segue_copy copy, found;
	struct stat st;

	cr_assert_eq(inflate_bytes(packed.bytes, packed.size, 0), SEGUE_OK);
	cr_assert(is_copy(&copy));
	cr_assert_eq(stat(target, &st), 0);
	for (off_t at = (off_t)copy.size; at < st.st_size; at++) {
		flip_target(at);
		cr_assert_not(is_copy(&found), "%jd", (intmax_t)at);
		flip_target(at);
	}
	for (off_t at = 0; at < (off_t)copy.size; at += 99991) {
		flip_target(at);
		cr_assert(is_copy(&found));
		cr_assert_eq(check_copy(&copy, &progress), 0);
		flip_target(at);
	}
	cr_assert_eq(check_copy(&copy, &progress), 1);
	cr_assert_eq(unlink(target), 0);
	cr_assert_eq(symlink(source, target), 0);
	cr_assert_not(is_copy(&found));
	cr_assert_eq(check_copy(&copy, &progress), 0);
}

/* A file of the same size, with the same beginning and end: the member between tells. */
BOTH(a_member_that_was_exchanged)
{
	struct segue_tfbytes all = {0}, other = {0};
	uint8_t data[64] = {0};
	struct segue_copy copy;

	for (uint8_t i = 0; i < 3; i++) {
		struct segue_tfbytes record = {0};

		data[0] = i;
		segue_tfwrite_record(&record, data, sizeof(data));
		pack(&all, record.bytes, record.size);
		record.size = 0;
		data[0] = i == 1 ? 7 : i;
		segue_tfwrite_record(&record, data, sizeof(data));
		pack(&other, record.bytes, record.size);
		segue_tfbytes_free(&record);
	}
	cr_assert_eq(all.size, other.size);
	cr_assert_neq(memcmp(all.bytes, other.bytes, all.size), 0);
	cr_assert_eq(inflate_bytes(all.bytes, all.size, 0), SEGUE_OK);
	cr_assert(is_copy(&copy));
	segue_tfwrite_file(source, other.bytes, other.size);
	cr_assert_not(is_copy(&copy));
	segue_tfbytes_free(&all);
	segue_tfbytes_free(&other);
}
