/* Opens sequence files: each file's head beside the spec, its foot, its index. */
#include "source/seqfile/file_set.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"

#define HEAD_FIRST 4096 /* bytes of a head that are read at once; few have more */

_Static_assert(sizeof(struct segue_seqfile_indexed) == sizeof(struct segue_index_entry) &&
		       offsetof(struct segue_seqfile_indexed, offset) ==
			       offsetof(struct segue_index_entry, offset) &&
		       offsetof(struct segue_seqfile_indexed, steps) ==
			       offsetof(struct segue_index_entry, length) &&
		       offsetof(struct segue_seqfile_indexed, crc) ==
			       offsetof(struct segue_index_entry, crc),
	"the index of a file is read as it is");

static bool begins(const uint8_t *bytes, size_t size)
{
	return size >= sizeof(SEGUE_SEQFILE_MAGIC) - 1 &&
	       memcmp(bytes, SEGUE_SEQFILE_MAGIC, sizeof(SEGUE_SEQFILE_MAGIC) - 1) == 0;
}

static const struct segue_file_format format = {"sequence", begins, .plain = true};

/* ---- Features: the spec's and a file's ------------------------------------------------------- */

static void add_text(char *text, size_t room, const char *part)
{
	size_t used = strlen(text);

	snprintf(text + used, room - used, "%s", part);
}

/* "float32 of shape (3, 4)", "ragged float32", "bytes" */
static void describe(enum segue_form form, enum segue_dtype dtype, uint32_t rank,
	const uint64_t *dims, char *text, size_t room)
{
	char number[32];

	if (form != SEGUE_FORM_DENSE) {
		snprintf(text, room, "%s%s%s", segue_form_name(form),
			form == SEGUE_FORM_RAGGED ? " " : "",
			form == SEGUE_FORM_RAGGED ? segue_dtype_name(dtype) : "");
		return;
	}
	snprintf(text, room, "%s of shape (", segue_dtype_name(dtype));
	for (uint32_t i = 0; i < rank; i++) {
		snprintf(number, sizeof(number), "%s%" PRIu64 "%s", i ? ", " : "", dims[i],
			rank == 1 ? "," : "");
		add_text(text, room, number);
	}
	add_text(text, room, ")");
}

const struct segue_field *segue_seqfile_field_of(const struct segue_spec *spec, size_t i)
{
	size_t features = spec->sequence_count + spec->context_count;

	if (i < spec->sequence_count)
		return &spec->sequences[i];
	return i < features ? &spec->contexts[i - spec->sequence_count]
			    : &spec->states[i - features];
}

static int fail_no_state(const struct segue_field *field, const struct segue_seqfile_head *head)
{
	char names[1024] = "";

	for (uint32_t i = 0; i < head->count; i++) {
		if (head->fields[i].place != SEGUE_SEQFILE_STATE)
			continue;
		add_text(names, sizeof(names), names[0] ? ", '" : "'");
		add_text(names, sizeof(names), head->fields[i].name);
		add_text(names, sizeof(names), "'");
	}
	return segue_fail(SEGUE_EDATA,
		"no initial values of state '%s'; the file has those of %s: write them (states= of "
		"segue.convert or FileWriter), or declare one value for all",
		field->name, names[0] ? names : "none");
}

static int fail_missing(const struct segue_field *field, enum segue_seqfile_place place,
	const struct segue_seqfile_head *head)
{
	char names[1024] = "";
	const char *other = NULL;

	if (place == SEGUE_SEQFILE_STATE)
		return fail_no_state(field, head);
	for (uint32_t i = 0; i < head->count; i++) {
		const struct segue_seqfile_field *has = &head->fields[i];

		if (has->place == SEGUE_SEQFILE_STATE)
			continue;
		if (strcmp(has->name, field->name) == 0)
			other = has->place == SEGUE_SEQFILE_CONTEXT ? "context" : "sequence";
		add_text(names, sizeof(names), names[0] ? ", '" : "'");
		add_text(names, sizeof(names), has->name);
		add_text(names, sizeof(names),
			has->place == SEGUE_SEQFILE_CONTEXT ? "' (context)" : "'");
	}
	if (other)
		return segue_fail(SEGUE_EDATA, "'%s' is a %s feature of the file: declare it so",
			field->name, other);
	return segue_fail(SEGUE_EDATA, "no %sfeature '%s'; the file has %s",
		place == SEGUE_SEQFILE_CONTEXT ? "context " : "", field->name, names);
}

static int find_column(const struct segue_field *field, enum segue_seqfile_place place,
	const struct segue_seqfile_head *head, uint32_t *column)
{
	char has[256], wants[256];

	for (uint32_t i = 0; i < head->count; i++) {
		const struct segue_seqfile_field *one = &head->fields[i];

		if (one->place != place || strcmp(one->name, field->name) != 0)
			continue;
		*column = i;
		if (one->form == field->form && one->dtype == field->dtype &&
			one->rank == field->rank &&
			memcmp(one->dims, field->dims, one->rank * sizeof(one->dims[0])) == 0)
			return 0;
		describe(one->form, one->dtype, one->rank, one->dims, has, sizeof(has));
		describe(field->form, field->dtype, field->rank, field->dims, wants, sizeof(wants));
		return segue_fail(SEGUE_EDATA,
			"%s '%s': the file has %s, the stream declares %s: declare it as it is, or "
			"convert it",
			place == SEGUE_SEQFILE_STATE ? "state" : "feature", field->name, has,
			wants);
	}
	return fail_missing(field, place, head);
}

static int find_columns(const struct segue_spec *spec, struct segue_seqfile_layout *layout)
{
	size_t features = spec->sequence_count + spec->context_count;
	int rc = 0;

	layout->column = calloc(segue_seqfile_columns(spec), sizeof(layout->column[0]));
	if (!layout->column)
		return segue_fail(SEGUE_ENOMEM, "no memory for the features of a file");
	for (size_t i = 0; !rc && i < segue_seqfile_columns(spec); i++) {
		const struct segue_field *field = segue_seqfile_field_of(spec, i);
		enum segue_seqfile_place place = SEGUE_SEQFILE_SEQUENCE;

		if (i >= spec->sequence_count)
			place = i < features ? SEGUE_SEQFILE_CONTEXT : SEGUE_SEQFILE_STATE;
		layout->column[i] = SEGUE_SEQFILE_NO_COLUMN;
		if (place != SEGUE_SEQFILE_STATE || field->from_data)
			rc = find_column(field, place, &layout->head, &layout->column[i]);
	}
	return rc;
}

/* ---- Head, foot, index ----------------------------------------------------------------------- */

static int read_head(struct segue_files *files, size_t file, struct segue_seqfile_head *head)
{
	uint64_t size = files->file[file].size;
	size_t wanted = size < HEAD_FIRST ? (size_t)size : HEAD_FIRST;
	uint8_t *bytes = NULL, *more;
	int rc = 1;

	while (rc == 1) {
		more = realloc(bytes, wanted);
		if (!more) {
			rc = segue_fail(SEGUE_ENOMEM, "no memory for the head of a file");
			break;
		}
		bytes = more;
		rc = segue_files_read(files, file, 0, bytes, wanted);
		if (!rc)
			rc = segue_seqfile_read_head(bytes, wanted, head);
		if (rc == 1 && (head->size > size || head->size <= wanted))
			rc = segue_fail(SEGUE_EDATA, "damaged: its head is cut short");
		if (rc == 1)
			wanted = head->size;
	}
	free(bytes);
	if (rc == SEGUE_EINVAL)
		return segue_fail(SEGUE_EDATA,
			"is no sequence file (segue.FileWriter and segue.convert write such)");
	return rc;
}

static int read_foot(struct segue_files *files, size_t file, struct segue_seqfile_foot *foot)
{
	uint8_t bytes[SEGUE_SEQFILE_FOOT];
	uint64_t size = files->file[file].size;
	int rc = SEGUE_EINVAL;

	if (size >= sizeof(bytes)) {
		rc = segue_files_read(files, file, size - sizeof(bytes), bytes, sizeof(bytes));
		if (!rc)
			rc = segue_seqfile_read_foot(bytes, size, foot);
	}
	if (rc == SEGUE_EINVAL)
		return segue_fail(SEGUE_EDATA,
			"ends without a foot: is somebody writing it? It can be read when its "
			"writer has closed it; if that is gone, 'segue repair' closes it");
	return rc;
}

/* Each entry lies behind the one before; the first behind the head, the last before the index. */
static int check_index(
	const struct segue_index_entry *entry, uint64_t count, uint64_t head_size, uint64_t end)
{
	uint64_t least = head_size;

	for (uint64_t i = 0; i < count; i++) {
		bool first = i == 0;

		if (entry[i].offset < least || (first && entry[i].offset != least) ||
			entry[i].offset % SEGUE_SEQFILE_ALIGN || entry[i].offset >= end ||
			entry[i].length == 0)
			return segue_fail(SEGUE_EDATA,
				"damaged: entry %" PRIu64 " of its index cannot be", i);
		least = entry[i].offset + SEGUE_SEQFILE_ALIGN;
	}
	return 0;
}

/* Reads it behind those of the files before. */
static int read_index(struct segue_seqfile_set *set, size_t file,
	const struct segue_seqfile_foot *foot, uint64_t head_size)
{
	uint64_t before = set->index.first[file], count = foot->entries;
	size_t size = count * sizeof(set->index.entry[0]);
	uint32_t crc;
	struct segue_index_entry *entry =
		realloc(set->index.entry, (before + count + 1) * sizeof(entry[0]));

	if (!entry)
		return segue_fail(SEGUE_ENOMEM, "no memory for the index of a file");
	set->index.entry = entry;
	entry += before;
	int rc = segue_files_read(set->files, file, foot->index, entry, size);
	if (!rc)
		rc = segue_files_read(set->files, file, foot->index + size, &crc, sizeof(crc));
	if (rc)
		return rc;
	if (segue_seqfile_crc(entry, size) != le32toh(crc))
		return segue_fail(SEGUE_EDATA, "damaged: the checksum of its index is wrong");
	for (uint64_t i = 0; i < count; i++)
		entry[i] = (struct segue_index_entry){
			le64toh(entry[i].offset), le32toh(entry[i].length), le32toh(entry[i].crc)};
	set->index.first[file + 1] = before + count;
	set->end[file] = foot->index;
	return check_index(entry, count, head_size, foot->index);
}

static int open_file(struct segue_seqfile_set *set, const struct segue_spec *spec, size_t file)
{
	struct segue_seqfile_layout *layout = &set->layout[file];
	struct segue_seqfile_foot foot;
	int rc = read_head(set->files, file, &layout->head);

	if (!rc)
		rc = read_foot(set->files, file, &foot);
	if (!rc && foot.head_size != layout->head.size)
		rc = segue_fail(SEGUE_EDATA, "damaged: head and foot are of two files");
	if (!rc)
		rc = find_columns(spec, layout);
	if (!rc)
		rc = read_index(set, file, &foot, layout->head.size);
	if (!rc && foot.key_max > set->key_max)
		set->key_max = foot.key_max;
	return rc;
}

/* ---- The set --------------------------------------------------------------------------------- */

static int open_files(struct segue_seqfile_set *set, const struct segue_spec *spec,
	const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = means->progress,
		.arg = means->arg,
		.what = "index",
		.total = set->files->count,
		.given_up = set->files->opener.given_up};
	int rc = 0;

	for (size_t i = 0; !rc && i < set->files->count; i++) {
		rc = open_file(set, spec, i);
		if (rc)
			return segue_file_fail_within(rc, &set->files->file[i]);
		rc = segue_progress_add(&told, 1);
	}
	if (!rc && set->index.first[set->files->count] == 0)
		rc = segue_fail(SEGUE_EDATA, "%s%s: no sequences, the data set is empty",
			set->files->file[0].path,
			set->files->count > 1 ? " and the other files" : "");
	return rc;
}

int segue_seqfile_set_open(struct segue_seqfile_set *set, const struct segue_spec *spec,
	const struct segue_source_means *means)
{
	memset(set, 0, sizeof(*set));
	int rc = segue_files_open(spec, &format, SEGUE_COMPRESSION_NONE, means, &set->files);
	if (!rc)
		rc = segue_index_init(&set->index, set->files);
	if (rc)
		return rc;
	set->layout = calloc(set->files->count, sizeof(set->layout[0]));
	set->end = calloc(set->files->count, sizeof(set->end[0]));
	if (!set->layout || !set->end)
		return segue_fail(SEGUE_ENOMEM, "no memory for the heads of files");
	rc = open_files(set, spec, means);
	if (!rc)
		segue_index_settle(&set->index, set->files);
	return rc;
}

void segue_seqfile_set_close(struct segue_seqfile_set *set)
{
	for (size_t i = 0; set->layout && i < set->files->count; i++) {
		segue_seqfile_free_head(&set->layout[i].head);
		free(set->layout[i].column);
	}
	free(set->layout);
	free(set->end);
	segue_index_finish(&set->index);
	segue_files_close(set->files);
	memset(set, 0, sizeof(*set));
}

size_t segue_seqfile_set_memory(const struct segue_seqfile_set *set)
{
	size_t size = segue_index_memory(&set->index) + segue_files_memory(set->files);

	for (size_t i = 0; i < set->files->count; i++)
		size += sizeof(set->layout[0]) +
			set->layout[i].head.count * sizeof(set->layout[0].head.fields[0]);
	return size;
}
