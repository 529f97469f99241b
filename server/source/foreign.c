/* Files of other kinds, by their first bytes. */
#include "source/foreign.h"

#include <ctype.h>
#include <string.h>

#include "core/sequence_file.h"
#include "source/tfrecord/framing.h"

#define CONVERT "'segue convert' makes a sequence file of it, which segue.Files reads"
#define ARRAYS  "open it with segue.Arrays, where it lies; or " CONVERT
#define DECODE  "decode it in Python, and let segue.convert make a sequence file of the arrays"

/* A continuation, then how long the schema is: a multiple of 8, and less than 16 MiB. */
static bool begins_arrow_stream(const uint8_t *bytes, size_t size)
{
	static const uint8_t continuation[] = {0xff, 0xff, 0xff, 0xff};

	return size > 8 && memcmp(bytes, continuation, sizeof(continuation)) == 0 &&
	       bytes[4] % 8 == 0 && (bytes[4] || bytes[5] || bytes[6]) && bytes[7] == 0;
}

/* A zip archive whose first member is an array. */
static bool begins_npz(const uint8_t *bytes, size_t size)
{
	static const char suffix[] = {'.', 'n', 'p', 'y'};
	enum { LENGTH = 26, NAME = 30 };
	size_t end;

	if (size < NAME || memcmp(bytes, "PK\3\4", 4) != 0)
		return false;
	end = NAME + bytes[LENGTH] + 256u * bytes[LENGTH + 1];
	return end <= size && end >= NAME + sizeof(suffix) &&
	       memcmp(bytes + end - sizeof(suffix), suffix, sizeof(suffix)) == 0;
}

static bool begins_wav(const uint8_t *bytes, size_t size)
{
	return size >= 12 && (memcmp(bytes, "RIFF", 4) == 0 || memcmp(bytes, "RF64", 4) == 0) &&
	       memcmp(bytes + 8, "WAVE", 4) == 0;
}

/* An object, in text: no record's length has eight bytes of text. */
static bool begins_json(const uint8_t *bytes, size_t size)
{
	size_t at = 1;

	if (size < 2 || bytes[0] != '{')
		return false;
	for (size_t i = 0; i < size && i < 8; i++)
		if (bytes[i] < ' ' && !isspace(bytes[i]))
			return false;
	while (at < size && isspace(bytes[at]))
		at++;
	return at < size && (bytes[at] == '"' || bytes[at] == '}');
}

static bool begins_tfrecord(const uint8_t *bytes, size_t size)
{
	return segue_tfrecord_format.begins(bytes, size);
}

static const struct segue_foreign kinds[] = {
	{"a TFRecord file", "open it with segue.TFRecord", .begins = begins_tfrecord},
	{"a sequence file", "open it with segue.Files", SEGUE_SEQFILE_MAGIC,
		sizeof(SEGUE_SEQFILE_MAGIC) - 1, NULL},
	{"a Parquet file", CONVERT, "PAR1", 4, NULL},
	{"an encrypted Parquet file", DECODE, "PARE", 4, NULL},
	{"an Arrow file", CONVERT, "ARROW1", 6, NULL},
	{"an Arrow stream", CONVERT, .begins = begins_arrow_stream},
	{"an HDF5 file", CONVERT, "\x89HDF\r\n\x1a\n", 8, NULL},
	{"a NumPy array (.npy)", ARRAYS, "\x93NUMPY", 6, NULL, SEGUE_FOREIGN_NPY},
	{"an archive of NumPy arrays (.npz)", ARRAYS, .begins = begins_npz,
		.arrays = SEGUE_FOREIGN_NPZ},
	{"a zip archive", "unpack it, and name the files that were in it", "PK\3\4", 4, NULL},
	{"an empty zip archive", "leave it out of the source's files", "PK\5\6", 4, NULL},
	{"a WAV file", ARRAYS, .begins = begins_wav, .arrays = SEGUE_FOREIGN_WAV},
	{"a FLAC file", DECODE, "fLaC", 4, NULL},
	{"an Ogg file", DECODE, "OggS", 4, NULL},
	{"JSON", "if it is lines of JSON, " CONVERT, .begins = begins_json},
};

const struct segue_foreign *segue_foreign_of(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct segue_foreign *kind = &kinds[i];

		if (kind->magic ? size >= kind->size && memcmp(bytes, kind->magic, kind->size) == 0
				: kind->begins(bytes, size))
			return kind;
	}
	return NULL;
}
