/* segue peek: the Python that opens files of arrays, which itself looks what is in them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/peek.h"
#include "cli/python.h"

/* Of a segment, and of a batch. */
enum { STEPS = 20, SAMPLES = 1000, BATCH_MOST = 32 };

static unsigned at16(const uint8_t *bytes)
{
	return bytes[0] + 256u * bytes[1];
}

/* Of the commonest head alone, whose format comes first: others are converted. */
static const char *dtype_of_wav(const uint8_t *bytes, size_t size)
{
	enum { FORM = 12, CODE = 20, BITS = 34, END = 36, PCM = 1, FLOAT = 3 };
	static const struct {
		unsigned code, bits;
		const char *dtype;
	} known[] = {{PCM, 8, "uint8"}, {PCM, 16, "int16"}, {PCM, 32, "int32"},
		{FLOAT, 32, "float32"}, {FLOAT, 64, "float64"}};

	if (size < END || memcmp(bytes, "RIFF", 4) != 0 || memcmp(bytes + FORM, "fmt ", 4) != 0)
		return NULL;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (at16(bytes + CODE) == known[i].code && at16(bytes + BITS) == known[i].bits)
			return known[i].dtype;
	return NULL;
}

struct segue_peek_arrays segue_peek_arrays_of(
	const struct segue_foreign *kind, const uint8_t *bytes, size_t size)
{
	enum { METHOD = 8, CHANNELS = 22 };
	struct segue_peek_arrays arrays = {.form = kind->arrays};

	if (kind->arrays == SEGUE_FOREIGN_NPZ)
		arrays.packed = at16(bytes + METHOD) != 0;
	if (kind->arrays != SEGUE_FOREIGN_WAV)
		return arrays;
	arrays.dtype = dtype_of_wav(bytes, size);
	arrays.channels = arrays.dtype ? at16(bytes + CHANNELS) : 0;
	if (!arrays.channels)
		arrays.form = SEGUE_FOREIGN_NO_ARRAYS;
	return arrays;
}

bool segue_peek_arrays_equal(
	const struct segue_peek_arrays *one, const struct segue_peek_arrays *other)
{
	return one->form == other->form && one->packed == other->packed &&
	       one->dtype == other->dtype && one->channels == other->channels;
}

static void add_paths(struct segue_python *text, const char *const path[], size_t count)
{
	bool pattern = segue_python_is_pattern(path, count);

	segue_python_add(text, "paths = %s", pattern ? "sorted(glob.glob(" : "");
	segue_python_add_paths(text, path, count);
	segue_python_add(text, "%s\n", pattern ? "))" : "");
}

static void add_source(struct segue_python *text, const struct segue_peek_arrays *arrays)
{
	switch (arrays->form) {
	case SEGUE_FOREIGN_NO_ARRAYS:
		return;
	case SEGUE_FOREIGN_NPY:
		segue_python_add(text,
			"    # Each file is a sequence. Of one that holds all, one behind the "
			"other:\n"
			"    # segue.Arrays.from_columns({\"x\": paths[0]}, lengths=...)\n"
			"    source=segue.Arrays({\"x\": paths}),\n"
			"    sequences={\"x\": segue.Feature(first.dtype.name, "
			"first.shape[1:])},\n");
		return;
	case SEGUE_FOREIGN_NPZ:
		segue_python_add(text, "    source=%s,\n",
			arrays->packed ? "segue.Files(\"train.segue\")"
				       : "segue.Arrays({name: paths for name in names})");
		segue_python_add(text, "    sequences={\n"
				       "        name: segue.Feature(first[name].dtype.name, "
				       "first[name].shape[1:])\n"
				       "        for name in names\n"
				       "    },\n");
		return;
	case SEGUE_FOREIGN_WAV:
		segue_python_add(text,
			"    source=segue.Arrays({\"audio\": paths}),\n"
			"    sequences={\"audio\": segue.Feature(\"%s\"",
			arrays->dtype);
		if (arrays->channels > 1)
			segue_python_add(text, ", %u", arrays->channels);
		segue_python_add(text, ")},\n");
		return;
	}
}

/* What has to be known, or made, before the stream can be opened. */
static void add_first(struct segue_python *text, const struct segue_peek_arrays *arrays)
{
	if (arrays->form == SEGUE_FOREIGN_NPY)
		segue_python_add(text, "first = np.load(paths[0], mmap_mode=\"r\")\n");
	if (arrays->form != SEGUE_FOREIGN_NPZ)
		return;
	segue_python_add(text, "first = np.load(paths[0])\n"
			       "names = [\n"
			       "    name for name in first.files\n"
			       "    if first[name].ndim and first[name].dtype.kind in \"biuf\"\n"
			       "]\n");
	if (arrays->packed)
		segue_python_add(text,
			"# They are compressed: they are decoded once.\n"
			"segue.convert(\n"
			"    ({name: np.load(path)[name] for name in names} for path in paths),\n"
			"    \"train.segue\",\n"
			")\n");
}

char *segue_peek_arrays_python(
	const struct segue_peek_arrays *arrays, const char *const path[], size_t count)
{
	struct segue_python text = {0};

	if (segue_python_is_pattern(path, count))
		segue_python_add(&text, "import glob\n\n");
	segue_python_add(&text, "%simport segue\n\n",
		arrays->form == SEGUE_FOREIGN_WAV ? "" : "import numpy as np\n");
	add_paths(&text, path, count);
	add_first(&text, arrays);
	segue_python_add(&text, "client = segue.open(\"store\")\n"
				"stream = client.stream(\n"
				"    \"train\",\n");
	add_source(&text, arrays);
	segue_python_add(&text, "    num_unroll=%d,\n    batch_size=%zu,\n)\n",
		arrays->form == SEGUE_FOREIGN_WAV ? SAMPLES : STEPS,
		count < BATCH_MOST ? count : BATCH_MOST);
	return text.bytes;
}
