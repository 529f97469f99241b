/* C20: gzip that is a bomb, cut off, of many members, or followed by something else. */
#include "hostile.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "tfwrite.h"

static unsigned number; /* of the next file */

/* Opens a stream over these bytes: 0 and the count of its records, or the error. */
static int open_bytes(const struct hostile *hostile, struct segue_client *client,
	const struct segue_tfbytes *bytes, uint64_t *records)
{
	char path[512], name[64];
	struct hostile_spec spec;
	struct segue_stream *stream = NULL;

	snprintf(path, sizeof(path), "%s/%u.tfrecord.gz", hostile->scratch, number);
	snprintf(name, sizeof(name), "gzip-%u", number++);
	segue_tfwrite_file(path, bytes->bytes, bytes->size);
	hostile_private_spec(hostile, name, &spec);
	spec.path = path;
	spec.spec.lanes = 1;
	int rc = segue_draft_open(client, &spec.spec, &stream);
	EXPECT(!rc || strstr(segue_error_detail(), path), "the file is not named: %s",
		segue_error_detail());
	if (!rc)
		*records = segue_stream_records(stream);
	segue_stream_close(stream);
	unlink(path);
	return rc;
}

/* `size` bytes that announce a record of 2^40 and are nothing but zeros after that. */
static struct segue_tfbytes make_bomb(size_t size)
{
	struct segue_tfbytes packed = {0};
	uint8_t *bytes = calloc(1, size);

	EXPECT(bytes, "no memory for a bomb");
	bytes[5] = 1;
	uint32_t crc = segue_tfwrite_crc(bytes, 8);
	memcpy(bytes + 8, &crc, sizeof(crc));
	segue_tfwrite_gzip(&packed, bytes, size);
	free(bytes);
	return packed;
}

static struct segue_tfbytes load(const char *path)
{
	struct segue_tfbytes bytes = {0};
	uint8_t part[4096];
	size_t got;
	FILE *file = fopen(path, "r");

	EXPECT(file, "%s", path);
	while ((got = fread(part, 1, sizeof(part), file)) > 0)
		segue_tfbytes_put(&bytes, part, got);
	fclose(file);
	return bytes;
}

static void expect_damage(const struct hostile *hostile, struct segue_client *client,
	const struct segue_tfbytes *bytes, const char *what)
{
	uint64_t records;
	int rc = open_bytes(hostile, client, bytes, &records);

	EXPECT(rc == SEGUE_EDATA, "%s: %s: %s", what, segue_error_name(rc), segue_error_detail());
}

void attack_gzip(struct hostile *hostile)
{
	struct segue_tfbytes plain = load(hostile->data), packed = {0}, many = {0};
	size_t size = (size_t)(hostile->thorough ? 256 : 64) << 20;
	struct segue_tfbytes bomb = make_bomb(size);
	struct segue_client *client;
	uint64_t records = 0;
	unsigned rounds = 0;

	EXPECT(segue_open(hostile->dir, NULL, &client) == 0, "open: %s", segue_error_detail());
	segue_tfwrite_gzip(&packed, plain.bytes, plain.size);
	for (size_t at = 0; at < plain.size; at += 1000)
		segue_tfwrite_gzip(
			&many, plain.bytes + at, plain.size - at < 1000 ? plain.size - at : 1000);
	EXPECT(open_bytes(hostile, client, &many, &records) == 0 && records == HOSTILE_RECORDS,
		"many members: %llu records: %s", (unsigned long long)records,
		segue_error_detail());
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		size_t whole = packed.size;
		expect_damage(hostile, client, &bomb, "a bomb");
		packed.size = 1 + hostile_random(hostile) % (whole - 1);
		if (packed.size > 2)
			expect_damage(hostile, client, &packed, "cut off");
		packed.size = whole;
		segue_tfbytes_put(&packed, "trailing garbage", 16);
		expect_damage(hostile, client, &packed, "trailing garbage");
		packed.size = whole;
	}
	segue_client_close(client);
	printf("%u rounds; the bomb: %zu bytes of %zu KiB\n", rounds, size, bomb.size >> 10);
	segue_tfbytes_free(&plain);
	segue_tfbytes_free(&packed);
	segue_tfbytes_free(&many);
	segue_tfbytes_free(&bomb);
}
