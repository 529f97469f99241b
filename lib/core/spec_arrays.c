/*
 * Arrays in files: the index of a source of them has a column for each of the stream's features.
 */
#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/sized.h"
#include "core/spec.h"

static const struct segue_field *feature_at(const struct segue_spec *spec, size_t i)
{
	return i < spec->sequence_count ? &spec->sequences[i]
					: &spec->contexts[i - spec->sequence_count];
}

static struct segue_array_column column_at(const struct segue_spec *spec, size_t i)
{
	const struct segue_field *field = feature_at(spec, i);
	struct segue_array_column column = {
		.context = i >= spec->sequence_count, .rank = (uint8_t)field->rank};

	memcpy(column.dims, field->dims, field->rank * sizeof(field->dims[0]));
	return column;
}

/* Whether the arrays of a feature can be given as it. */
static int check_column(const struct segue_spec *spec, const struct segue_array_index *index,
	const struct segue_paths *paths, size_t i)
{
	const struct segue_field *field = feature_at(spec, i);
	struct segue_array_column column = column_at(spec, i);

	if (memcmp(&column, &index->column[i], sizeof(column)) != 0)
		return segue_fail(SEGUE_EINVAL,
			"feature '%s': its arrays have steps of another shape", field->name);
	for (uint32_t group = 0; group < index->groups; group++) {
		const struct segue_array_place *place =
			segue_array_index_place(index, group, (uint32_t)i);
		enum segue_dtype has = place->dtype;

		if (!segue_dtype_widens(has, field->dtype))
			return segue_fail(SEGUE_EINVAL,
				"feature '%s': its array in %s is %s, which as %s would lose "
				"values: declare %s, or convert it (segue.convert)",
				field->name, paths->path[place->file], segue_dtype_name(has),
				segue_dtype_name(field->dtype), segue_dtype_name(has));
	}
	return 0;
}

static int check_index(const struct segue_spec *spec, const struct segue_spec_source *source)
{
	struct segue_array_index **at = segue_source_index(source);
	size_t features = spec->sequence_count + spec->context_count;
	int rc = 0;

	if (!at || !*at)
		return 0;
	if ((*at)->columns != features || (*at)->files != segue_source_paths(source)->count)
		return segue_fail(SEGUE_EINVAL,
			"the index of arrays is of %" PRIu32 " features in %" PRIu32
			" files, the stream has %zu in %zu",
			(*at)->columns, (*at)->files, features, segue_source_paths(source)->count);
	for (size_t i = 0; !rc && i < features; i++)
		rc = check_column(spec, *at, segue_source_paths(source), i);
	return rc;
}

int segue_spec_check_index(const struct segue_spec *spec)
{
	const struct segue_spec_source *source;
	int rc = 0;

	for (size_t i = 0; !rc && (source = segue_source_plain(&spec->source, i)); i++) {
		rc = check_index(spec, source);
		if (rc)
			segue_source_fail_within(&spec->source, i, rc);
	}
	return rc;
}

/* The source that has them: of a mix its part of that name; NULL: the last. */
static int find_source(struct segue_spec *spec, const char *name, struct segue_spec_source **out)
{
	if (!name)
		return segue_source_last(&spec->source, out);
	for (size_t i = 0; spec->source.kind == SEGUE_SOURCE_MIX && i < spec->source.mix.count; i++)
		if (strcmp(spec->source.mix.part[i].name, name) == 0) {
			*out = &spec->source.mix.part[i].source;
			return 0;
		}
	return segue_fail(SEGUE_EINVAL, "the source has no part \"%s\"", name);
}

int segue_spec_set_arrays(struct segue_spec *spec, const struct segue_arrays *given)
{
	struct segue_array_column columns[SEGUE_FEATURES_MAX];
	struct segue_array_index **at, *index;
	struct segue_spec_source *source;
	struct segue_arrays arrays;
	size_t features;
	int rc;

	if (!spec)
		return segue_fail(SEGUE_EINVAL, "spec is missing (NULL)");
	rc = segue_sized_take("segue_arrays", given, sizeof(arrays), &arrays);
	if (!rc)
		rc = find_source(spec, arrays.part, &source);
	if (rc)
		return rc;
	at = segue_source_index(source);
	if (!at)
		return segue_fail(SEGUE_EINVAL,
			"segue_spec_set_arrays wants a source, or a part of a mix, of kind %s",
			segue_source_row(SEGUE_SOURCE_ARRAYS)->name);
	features = spec->sequence_count + spec->context_count;
	for (size_t i = 0; i < features; i++)
		columns[i] = column_at(spec, i);
	rc = segue_array_index_pack(&arrays, (uint32_t)segue_source_paths(source)->count, columns,
		(uint32_t)features, &index);
	if (rc)
		return rc;
	segue_array_index_drop(*at);
	*at = index;
	return 0;
}
