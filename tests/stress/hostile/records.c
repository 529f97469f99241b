/* C19: damaged TFRecord files: a typed error that names file and place, or the record passed over. */
#include "hostile.h"

#include <stdio.h>
#include <sys/stat.h>

#include "tfwrite.h"

enum { HEADER = 12, LIMIT = 500 };

static unsigned number; /* of the next file */

/* Reads a stream over these bytes to its end: 0 or the error. */
static int read_all(const struct hostile *hostile, struct segue_client *client,
	const struct segue_tfbytes *bytes, bool skip)
{
	char path[512], name[64];
	struct hostile_spec spec;
	struct segue_stream *stream = NULL;
	struct segue_lane *lane = NULL;
	struct segue_batch *batch;

	snprintf(path, sizeof(path), "%s/%u.tfrecord", hostile->scratch, number);
	snprintf(name, sizeof(name), "records-%u", number++);
	segue_tfwrite_file(path, bytes->bytes, bytes->size);
	hostile_private_spec(hostile, name, &spec);
	spec.path = path;
	spec.spec.lanes = 1;
	spec.spec.epochs = 1;
	spec.spec.on_error = skip ? SEGUE_ON_ERROR_SKIP : SEGUE_ON_ERROR_RAISE;
	int rc = segue_draft_open(client, &spec.spec, &stream);
	if (!rc)
		rc = segue_lane_attach(stream, 0, NULL, &lane);
	for (int batches = 0; !rc; batches++) {
		EXPECT(batches < LIMIT, "no end after %d batches", batches);
		rc = segue_lane_next(lane, INT64_C(20000000000), &batch);
		if (!rc)
			hostile_commit(batch);
	}
	EXPECT(rc == SEGUE_EEND || strstr(segue_error_detail(), path), "the file is not named: %s",
		segue_error_detail());
	segue_lane_close(lane);
	segue_stream_close(stream);
	unlink(path);
	return rc == SEGUE_EEND ? 0 : rc;
}

static void put64(uint8_t *at, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* The first record's length replaced, with a right checksum. */
static void set_length(struct segue_tfbytes *bytes, uint64_t length)
{
	put64(bytes->bytes, length);
	uint32_t crc = segue_tfwrite_crc(bytes->bytes, 8);
	for (int i = 0; i < 4; i++)
		bytes->bytes[8 + i] = (uint8_t)(crc >> 8 * i);
}

static struct segue_tfbytes load(const char *path)
{
	struct segue_tfbytes bytes = {0};
	struct stat info;
	FILE *file = fopen(path, "r");

	EXPECT(file && fstat(fileno(file), &info) == 0, "%s", path);
	uint8_t *all = malloc((size_t)info.st_size);
	EXPECT(all && fread(all, 1, (size_t)info.st_size, file) == (size_t)info.st_size, "%s",
		path);
	segue_tfbytes_put(&bytes, all, (size_t)info.st_size);
	free(all);
	fclose(file);
	return bytes;
}

enum damage {
	LENGTH_CRC,
	DATA_CRC,
	HUGE_LENGTH,
	LONG_LENGTH,
	ZERO_LENGTH,
	CUT_HEADER,
	CUT_DATA,
	CUT_FOOTER,
	NUL_TAIL,
	EMPTY,
	DAMAGES
};

static void spoil(struct segue_tfbytes *bytes, enum damage damage)
{
	static const uint8_t zeros[100];

	switch (damage) {
	case LENGTH_CRC:
		bytes->bytes[9] ^= 1;
		break;
	case DATA_CRC:
		bytes->bytes[HEADER + 3] ^= 1;
		break;
	case HUGE_LENGTH:
		set_length(bytes, UINT64_C(1) << 63);
		break;
	case LONG_LENGTH:
		set_length(bytes, UINT64_C(1) << 40);
		break;
	case ZERO_LENGTH:
		set_length(bytes, 0);
		break;
	case CUT_HEADER:
		bytes->size = 5;
		break;
	case CUT_DATA:
		bytes->size = HEADER + 3;
		break;
	case CUT_FOOTER:
		bytes->size -= 2;
		break;
	case NUL_TAIL:
		segue_tfbytes_put(bytes, zeros, sizeof(zeros));
		break;
	case EMPTY:
		bytes->size = 0;
		break;
	case DAMAGES:
		break;
	}
}

void attack_records(struct hostile *hostile)
{
	struct segue_client *client;
	unsigned tried = 0;

	EXPECT(segue_open(hostile->dir, NULL, &client) == 0, "open: %s", segue_error_detail());
	for (; tried < DAMAGES + 20 || hostile_time_left(hostile); tried++) {
		struct segue_tfbytes bytes = load(hostile->data);
		bool skip = tried / DAMAGES % 2;
		if (tried < 2 * DAMAGES)
			spoil(&bytes, tried % DAMAGES);
		else
			bytes.bytes[hostile_random(hostile) % bytes.size] ^=
				(uint8_t)(1 << hostile_random(hostile) % 8);
		int rc = read_all(hostile, client, &bytes, skip);
		bool must_fail = skip ? tried < 2 * DAMAGES && tried % DAMAGES != DATA_CRC : true;
		EXPECT(rc ? rc == SEGUE_EDATA || rc == SEGUE_ESOURCE : !must_fail,
			"damage %u, on_error %s: %s", tried, skip ? "skip" : "raise",
			rc ? segue_error_detail() : "read to the end");
		segue_tfbytes_free(&bytes);
	}
	segue_client_close(client);
	printf("%u damaged files\n", tried);
}
