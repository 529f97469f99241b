/*
 * A stream's spec to protobuf and back.
 */
#include "core/wire_spec.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"

/* Of a source's message, without what it points to: that of the longest. */
#define SOURCE_SIZE_MAX sizeof(Segue__Pb__TFRecord)
_Static_assert(sizeof(Segue__Pb__Files) <= SOURCE_SIZE_MAX, "a longer one");
_Static_assert(sizeof(Segue__Pb__Arrays) <= SOURCE_SIZE_MAX, "a longer one");

_Static_assert(sizeof(Segue__Pb__Log) <= SOURCE_SIZE_MAX, "a longer one");
_Static_assert(sizeof(Segue__Pb__Mix) <= SOURCE_SIZE_MAX, "a longer one");
/* A part's source goes by a Spec that has nothing else. */
_Static_assert(
	(int)SEGUE__PB__MIX_PART__SOURCE_TFRECORD == (int)SEGUE__PB__SPEC__SOURCE_TFRECORD &&
		(int)SEGUE__PB__MIX_PART__SOURCE_FILES == (int)SEGUE__PB__SPEC__SOURCE_FILES &&
		(int)SEGUE__PB__MIX_PART__SOURCE_ARRAYS == (int)SEGUE__PB__SPEC__SOURCE_ARRAYS &&
		(int)SEGUE__PB__MIX_PART__SOURCE_LOG == (int)SEGUE__PB__SPEC__SOURCE_LOG,
	"segue.proto");

/* Of the parts of a mix, but for their paths. */
static size_t parts_scratch(const struct segue_spec_source *source)
{
	size_t count = source->kind == SEGUE_SOURCE_MIX ? source->mix.count : 0;

	return count * (sizeof(Segue__Pb__MixPart) + sizeof(void *) + SOURCE_SIZE_MAX +
			       4 * SEGUE_ARENA_ALIGN);
}

size_t segue_pb_spec_scratch(const struct segue_spec *spec)
{
	size_t fields = spec->sequence_count + spec->context_count + spec->state_count, paths = 0;
	const struct segue_paths *list;

	for (size_t i = 0; (list = segue_source_list(&spec->source, i)); i++)
		paths += list->count;
	return parts_scratch(&spec->source) +
	       fields * (sizeof(Segue__Pb__Field) + sizeof(void *) + SEGUE_ARENA_ALIGN) +
	       paths * sizeof(ProtobufCBinaryData) + 16 * SEGUE_ARENA_ALIGN +
	       sizeof(Segue__Pb__Spec) + SOURCE_SIZE_MAX;
}

static Segue__Pb__Field **put_fields(struct segue_arena *scratch, const struct segue_field *fields,
	const uint64_t (*init)[2], size_t count)
{
	Segue__Pb__Field **out = segue_pb_build(scratch, count, sizeof(*out));

	for (size_t i = 0; i < count; i++) {
		Segue__Pb__Field *pb = segue_pb_build(scratch, 1, sizeof(*pb));

		segue__pb__field__init(pb);
		pb->name = fields[i].name;
		pb->dtype = fields[i].dtype;
		pb->n_dims = fields[i].rank;
		pb->dims = (uint64_t *)(uintptr_t)fields[i].dims;
		pb->init_low = init ? init[i][0] : 0;
		pb->init_high = init ? init[i][1] : 0;
		pb->from_data = fields[i].from_data;
		pb->form = fields[i].form;
		pb->policy = fields[i].policy.kind;
		pb->probability = fields[i].policy.probability;
		out[i] = pb;
	}
	return out;
}

/* ---- Sources ---- */

static void put_paths(struct segue_arena *scratch, const struct segue_paths *paths,
	ProtobufCBinaryData **out, size_t *count)
{
	*out = segue_pb_build(scratch, paths->count, sizeof(**out));
	*count = paths->count;
	for (size_t i = 0; i < paths->count; i++)
		(*out)[i] = segue_pb_put_bytes(paths->path[i], strlen(paths->path[i]));
}

static ProtobufCBinaryData put_name(const char *name)
{
	return name ? segue_pb_put_bytes(name, strlen(name)) : (ProtobufCBinaryData){.len = 0};
}

static void put_tfrecord(struct segue_arena *scratch, const struct segue_spec_tfrecord *source,
	bool with_paths, Segue__Pb__Spec *to)
{
	Segue__Pb__TFRecord *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__tfrecord__init(pb);
	if (with_paths)
		put_paths(scratch, &source->paths, &pb->paths, &pb->n_paths);
	pb->compression = source->compression;
	pb->key_feature = put_name(source->key_feature);
	pb->allow_surplus = source->allow_surplus;
	pb->record = source->record;
	to->source_case = SEGUE__PB__SPEC__SOURCE_TFRECORD;
	to->tfrecord = pb;
}

static void put_files(struct segue_arena *scratch, const struct segue_spec_files *source,
	bool with_paths, Segue__Pb__Spec *to)
{
	Segue__Pb__Files *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__files__init(pb);
	if (with_paths)
		put_paths(scratch, &source->paths, &pb->paths, &pb->n_paths);
	to->source_case = SEGUE__PB__SPEC__SOURCE_FILES;
	to->files = pb;
}

static void put_arrays(struct segue_arena *scratch, const struct segue_spec_arrays *source,
	bool with_paths, Segue__Pb__Spec *to)
{
	Segue__Pb__Arrays *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__arrays__init(pb);
	if (with_paths)
		put_paths(scratch, &source->paths, &pb->paths, &pb->n_paths);
	pb->checksum = source->checksum;
	to->source_case = SEGUE__PB__SPEC__SOURCE_ARRAYS;
	to->arrays = pb;
}

static void put_log(
	struct segue_arena *scratch, const struct segue_spec_log *source, Segue__Pb__Spec *to)
{
	Segue__Pb__Log *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__log__init(pb);
	pb->capacity = source->capacity;
	pb->producers = source->producers;
	pb->retain_sequences = source->retain_sequences;
	pb->retain_bytes = source->retain_bytes;
	to->source_case = SEGUE__PB__SPEC__SOURCE_LOG;
	to->log = pb;
}

static void put_source(struct segue_arena *scratch, const struct segue_spec_source *source,
	bool with_paths, Segue__Pb__Spec *to);

static void put_mix(struct segue_arena *scratch, const struct segue_spec_mix *mix, bool with_paths,
	Segue__Pb__Spec *to)
{
	Segue__Pb__Mix *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__mix__init(pb);
	pb->n_parts = mix->count;
	pb->parts = segue_pb_build(scratch, mix->count, sizeof(*pb->parts));
	for (size_t i = 0; i < mix->count; i++) {
		Segue__Pb__MixPart *part = segue_pb_build(scratch, 1, sizeof(*part));
		Segue__Pb__Spec source = {.source_case = SEGUE__PB__SPEC__SOURCE__NOT_SET};

		put_source(scratch, &mix->part[i].source, with_paths, &source);
		segue__pb__mix_part__init(part);
		part->name = mix->part[i].name;
		part->weight = mix->part[i].weight;
		part->epochs = mix->part[i].epochs;
		part->source_case = (Segue__Pb__MixPart__SourceCase)source.source_case;
		part->tfrecord = source.tfrecord; /* of a union */
		pb->parts[i] = part;
	}
	to->source_case = SEGUE__PB__SPEC__SOURCE_MIX;
	to->mix = pb;
}

static void put_source(struct segue_arena *scratch, const struct segue_spec_source *source,
	bool with_paths, Segue__Pb__Spec *to)
{
	switch (source->kind) {
	case SEGUE_SOURCE_TFRECORD:
		put_tfrecord(scratch, &source->tfrecord, with_paths, to);
		return;
	case SEGUE_SOURCE_FILES:
		put_files(scratch, &source->files, with_paths, to);
		return;
	case SEGUE_SOURCE_ARRAYS:
		put_arrays(scratch, &source->arrays, with_paths, to);
		return;
	case SEGUE_SOURCE_MIX:
		put_mix(scratch, &source->mix, with_paths, to);
		return;
	case SEGUE_SOURCE_LOG:
		put_log(scratch, &source->log, to);
		return;
	case SEGUE_SOURCE_STORED:
		return;
	}
}

/* The source of a part, where functions look for one. */
static Segue__Pb__Spec spec_of(const Segue__Pb__MixPart *part)
{
	return (Segue__Pb__Spec){.source_case = (Segue__Pb__Spec__SourceCase)part->source_case,
		.tfrecord = part->tfrecord}; /* of a union */
}

bool segue_pb_spec_has_paths(const Segue__Pb__Spec *pb)
{
	if (!pb)
		return false;
	for (size_t i = 0; pb->source_case == SEGUE__PB__SPEC__SOURCE_MIX && i < pb->mix->n_parts;
		i++) {
		const Segue__Pb__Spec part = spec_of(pb->mix->parts[i]);

		if (segue_pb_spec_has_paths(&part))
			return true;
	}
	return (pb->source_case == SEGUE__PB__SPEC__SOURCE_TFRECORD && pb->tfrecord->n_paths > 0) ||
	       (pb->source_case == SEGUE__PB__SPEC__SOURCE_FILES && pb->files->n_paths > 0) ||
	       (pb->source_case == SEGUE__PB__SPEC__SOURCE_ARRAYS && pb->arrays->n_paths > 0);
}

static int get_name(const char *field, const ProtobufCBinaryData *from, char **out)
{
	int rc = segue_pb_check_string(field, from, SEGUE_NAME_MAX);

	if (rc || from->len == 0)
		return rc;
	*out = strndup((char *)from->data, from->len);
	return *out ? 0 : segue_pb_fail_memory();
}

static int get_paths(const ProtobufCBinaryData *from, size_t count, struct segue_paths *out)
{
	int rc = segue_pb_check_range("spec.paths", count, 0, SEGUE_PATHS_MAX);

	if (rc || count == 0)
		return rc;
	out->path = calloc(count, sizeof(*out->path));
	if (!out->path)
		return segue_pb_fail_memory();
	for (; out->count < count; out->count++) {
		const ProtobufCBinaryData *path = &from[out->count];

		rc = segue_pb_check_string("spec.paths", path, PATH_MAX - 1);
		if (rc)
			return rc;
		out->path[out->count] = strndup(path->len ? (char *)path->data : "", path->len);
		if (!out->path[out->count])
			return segue_pb_fail_memory();
	}
	return 0;
}

static int get_tfrecord(const Segue__Pb__TFRecord *pb, struct segue_spec_source *out)
{
	struct segue_spec_tfrecord *to = &out->tfrecord;
	int rc;

	out->kind = SEGUE_SOURCE_TFRECORD;
	rc = get_name("spec.key_feature", &pb->key_feature, &to->key_feature);
	if (!rc)
		rc = get_paths(pb->paths, pb->n_paths, &to->paths);
	if (!rc)
		rc = segue_pb_check_range("spec.compression", pb->compression,
			SEGUE_COMPRESSION_AUTO, SEGUE_COMPRESSION_ZLIB);
	if (!rc)
		rc = segue_pb_check_range("spec.record", pb->record, SEGUE_RECORD_SEQUENCE_EXAMPLE,
			SEGUE_RECORD_EXAMPLE);
	to->compression = pb->compression;
	to->allow_surplus = pb->allow_surplus;
	to->record = pb->record;
	return rc;
}

static int get_source(const Segue__Pb__Spec *pb, struct segue_spec_source *out);

static int get_text(const char *field, const char *text, size_t most, char **out)
{
	int rc = segue_pb_check_text(field, text, most);

	if (rc)
		return rc;
	*out = strdup(text);
	return *out ? 0 : segue_pb_fail_memory();
}

static int get_part(const Segue__Pb__MixPart *pb, struct segue_spec_part *out)
{
	const Segue__Pb__Spec source = spec_of(pb);
	int rc = get_text("name", pb->name, SEGUE_NAME_MAX, &out->name);

	out->weight = pb->weight;
	out->epochs = pb->epochs;
	return rc ? rc : get_source(&source, &out->source);
}

static int get_mix(const Segue__Pb__Mix *pb, struct segue_spec_source *out)
{
	int rc = segue_pb_check_range("spec.parts", pb->n_parts, 1, SEGUE_PARTS_MAX);

	if (rc)
		return rc;
	out->mix.part = calloc(pb->n_parts, sizeof(*out->mix.part));
	if (!out->mix.part)
		return segue_pb_fail_memory();
	out->kind = SEGUE_SOURCE_MIX;
	out->mix.count = pb->n_parts;
	for (size_t i = 0; !rc && i < pb->n_parts; i++) {
		rc = get_part(pb->parts[i], &out->mix.part[i]);
		if (rc)
			segue_fail_within(rc, "spec.parts[%zu]", i);
	}
	return rc;
}

static int get_source(const Segue__Pb__Spec *pb, struct segue_spec_source *out)
{
	switch (pb->source_case) {
	case SEGUE__PB__SPEC__SOURCE_TFRECORD:
		return get_tfrecord(pb->tfrecord, out);
	case SEGUE__PB__SPEC__SOURCE_FILES:
		out->kind = SEGUE_SOURCE_FILES;
		return get_paths(pb->files->paths, pb->files->n_paths, &out->files.paths);
	case SEGUE__PB__SPEC__SOURCE_ARRAYS:
		out->kind = SEGUE_SOURCE_ARRAYS;
		out->arrays.checksum = pb->arrays->checksum;
		return get_paths(pb->arrays->paths, pb->arrays->n_paths, &out->arrays.paths);
	case SEGUE__PB__SPEC__SOURCE_MIX:
		return get_mix(pb->mix, out);
	case SEGUE__PB__SPEC__SOURCE_LOG:
		out->kind = SEGUE_SOURCE_LOG;
		out->log.capacity = pb->log->capacity;
		out->log.producers = pb->log->producers;
		out->log.retain_sequences = pb->log->retain_sequences;
		out->log.retain_bytes = pb->log->retain_bytes;
		return 0;
	case SEGUE__PB__SPEC__SOURCE__NOT_SET:
	default: /* protobuf-c adds a value of its own, for the size of the enum */
		return segue_fail(SEGUE_EPROTOCOL,
			"spec.source is missing, or of a kind that is not known here");
	}
}

/* ---- Spec ---- */

Segue__Pb__Spec *segue_pb_put_spec(
	struct segue_arena *scratch, const struct segue_spec *spec, enum segue_pb_parts parts)
{
	Segue__Pb__Spec *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__spec__init(pb);
	pb->name = spec->name;
	if (parts != SEGUE_PB_NO_SOURCE)
		put_source(scratch, &spec->source, parts == SEGUE_PB_ALL, pb);
	pb->n_sequences = spec->sequence_count;
	pb->sequences = put_fields(scratch, spec->sequences, NULL, spec->sequence_count);
	pb->n_contexts = spec->context_count;
	pb->contexts = put_fields(scratch, spec->contexts, NULL, spec->context_count);
	pb->n_states = spec->state_count;
	pb->states = put_fields(scratch, spec->states,
		(const uint64_t(*)[2])(uintptr_t)spec->init_hash, spec->state_count);
#define PUT(name, ...) pb->name = spec->name;
	SEGUE_OPTIONS(PUT)
#undef PUT
	pb->n_bucket_boundaries = spec->boundaries.count;
	pb->bucket_boundaries = (uint64_t *)(uintptr_t)spec->boundaries.length;
	return pb;
}

static int get_field(const Segue__Pb__Field *pb, struct segue_field *out)
{
	int rc = get_text("name", pb->name, SEGUE_NAME_MAX, &out->name);

	if (!rc)
		rc = segue_pb_check_range("number of dims", pb->n_dims, 0, SEGUE_RANK_MAX);
	if (!rc)
		rc = segue_pb_check_range("dtype", pb->dtype, 1, segue_dtype_last());
	if (!rc)
		rc = segue_pb_check_range("form", pb->form, SEGUE_FORM_DENSE, SEGUE_FORM_BYTES);
	if (!rc)
		rc = segue_pb_check_range(
			"policy", pb->policy, SEGUE_POLICY_CARRY, SEGUE_POLICY_ZERO);
	if (rc)
		return rc;
	out->dtype = pb->dtype;
	out->form = pb->form;
	out->policy = (struct segue_state_policy){pb->policy, pb->probability};
	out->rank = (uint32_t)pb->n_dims;
	if (pb->n_dims > 0)
		memcpy(out->dims, pb->dims, pb->n_dims * sizeof(out->dims[0]));
	return 0;
}

static int get_fields(const char *kind, Segue__Pb__Field **pb, size_t count, size_t most,
	struct segue_field **out, size_t *out_count)
{
	struct segue_field *fields;
	int rc = segue_pb_check_range(kind, count, 0, most);

	if (rc || count == 0)
		return rc;
	fields = calloc(count, sizeof(*fields));
	if (!fields)
		return segue_pb_fail_memory();
	*out = fields;
	*out_count = count;
	for (size_t i = 0; i < count; i++) {
		rc = get_field(pb[i], &fields[i]);
		if (rc)
			return segue_fail_within(rc, "%s[%zu]", kind, i);
	}
	return 0;
}

static int get_states(const Segue__Pb__Spec *pb, struct segue_spec *out)
{
	int rc = get_fields("spec.states", pb->states, pb->n_states, SEGUE_STATES_MAX, &out->states,
		&out->state_count);

	if (rc || out->state_count == 0)
		return rc;
	out->init_hash = calloc(out->state_count, sizeof(*out->init_hash));
	if (!out->init_hash)
		return segue_pb_fail_memory();
	for (size_t i = 0; i < out->state_count; i++) {
		out->init_hash[i][0] = pb->states[i]->init_low;
		out->init_hash[i][1] = pb->states[i]->init_high;
		out->states[i].from_data = pb->states[i]->from_data;
	}
	return 0;
}

/* Into the types of the spec; a choice that is none would have no name. */
static int get_options(const Segue__Pb__Spec *pb, struct segue_spec *out)
{
	char what[64];
	int rc = 0;

#define GET(name, ...) out->name = pb->name;
	SEGUE_OPTIONS(GET)
#undef GET
	/* Those of stores that are older than the option. */
	if (!out->groups_timeout_ms)
		out->groups_timeout_ms = SEGUE_GROUPS_TIMEOUT;
	for (const struct segue_option *option = segue_spec_options; !rc && option->name;
		option++) {
		snprintf(what, sizeof(what), "spec.%s", option->name);
		if (option->kind == SEGUE_OPTION_CHOICE)
			rc = segue_pb_check_range(
				what, segue_option_get(option, out), 0, option->most);
	}
	return rc;
}

static int get_boundaries(const Segue__Pb__Spec *pb, struct segue_boundaries *out)
{
	int rc = segue_pb_check_range(
		"spec.bucket_boundaries", pb->n_bucket_boundaries, 0, SEGUE_BOUNDARIES_MAX);

	if (rc || pb->n_bucket_boundaries == 0)
		return rc;
	out->count = (uint32_t)pb->n_bucket_boundaries;
	memcpy(out->length, pb->bucket_boundaries, out->count * sizeof(out->length[0]));
	return 0;
}

/* A kind that is not known here is none: it is not taken for a source that is left out. */
static int get_no_source(const Segue__Pb__Spec *pb)
{
	if (pb->source_case == SEGUE__PB__SPEC__SOURCE__NOT_SET)
		return 0;
	return segue_fail(SEGUE_EPROTOCOL, "spec.source is there, and should be left out");
}

static int fill_spec(const Segue__Pb__Spec *pb, enum segue_pb_parts parts, struct segue_spec *spec)
{
	int rc = get_text("spec.name", pb->name, SEGUE_NAME_MAX, &spec->name);

	if (!rc)
		rc = get_fields("spec.sequences", pb->sequences, pb->n_sequences,
			SEGUE_FEATURES_MAX, &spec->sequences, &spec->sequence_count);
	if (!rc)
		rc = get_fields("spec.contexts", pb->contexts, pb->n_contexts, SEGUE_FEATURES_MAX,
			&spec->contexts, &spec->context_count);
	if (!rc)
		rc = get_states(pb, spec);
	if (!rc)
		rc = get_options(pb, spec);
	if (!rc)
		rc = get_boundaries(pb, &spec->boundaries);
	if (!rc)
		rc = parts == SEGUE_PB_NO_SOURCE ? get_no_source(pb)
						 : get_source(pb, &spec->source);
	return rc;
}

int segue_pb_get_spec(const Segue__Pb__Spec *pb, enum segue_pb_parts parts, struct segue_spec **out)
{
	struct segue_spec *spec;
	int rc;

	if (!pb)
		return segue_fail(SEGUE_EPROTOCOL, "spec is missing");
	spec = calloc(1, sizeof(*spec));
	if (!spec)
		return segue_pb_fail_memory();
	rc = fill_spec(pb, parts, spec);
	if (rc) {
		segue_spec_destroy(spec);
		return rc;
	}
	*out = spec;
	return 0;
}
