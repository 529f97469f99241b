/* What a stream's batches look like. */
#include "client/shape.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/error.h"

void segue_shape_drop(struct segue_shape *shape)
{
	if (!shape || --shape->users > 0)
		return;
	segue_geometry_finish(&shape->geometry);
	segue_spec_destroy(shape->spec);
	free(shape);
}

static int check_indexes(const struct segue_spec_source *source)
{
	const struct segue_spec_source *plain;

	for (size_t i = 0; (plain = segue_source_plain(source, i)); i++) {
		struct segue_array_index **index = segue_source_index(plain);

		if (index && !*index)
			return segue_source_fail_within(source, i,
				segue_fail(SEGUE_EINVAL,
					"the arrays of the source are missing (in C: "
					"segue_spec_set_arrays)"));
	}
	return 0;
}

/* The server may have kept an index; who opens the stream must bring one. */
static int check_whole(struct segue_spec *spec)
{
	int rc = segue_spec_check(spec);

	if (!rc)
		rc = check_indexes(&spec->source);
	for (size_t i = 0; !rc && i < spec->state_count; i++)
		if (segue_spec_wants_init(spec, i))
			rc = segue_fail(SEGUE_EINVAL,
				"states[%zu] \"%s\": stream '%s' was made with an initial value "
				"that is not zeros, of which the store has a hash alone: give it "
				"(segue_spec_set_init)",
				i, spec->states[i].name, spec->name);
	return rc;
}

int segue_shape_create(const struct segue_spec *asked, struct segue_shape **out)
{
	struct segue_shape *shape = calloc(1, sizeof(*shape));

	if (!shape)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	shape->users = 1;
	int rc = segue_spec_copy(asked, &shape->spec);
	if (!rc)
		rc = check_whole(shape->spec);
	if (rc) {
		segue_shape_drop(shape);
		return rc;
	}
	shape->row_size = segue_row_size(shape->spec);
	*out = shape;
	return 0;
}

int segue_shape_settle(struct segue_shape *shape, uint32_t key_max, uint64_t hash)
{
	if (!shape->settled) {
		int rc = segue_geometry_init(
			shape->spec, shape->spec->batch_size, key_max, &shape->geometry);
		if (rc)
			return rc;
		shape->key_max = key_max;
		shape->settled = true;
	}
	if (key_max != shape->key_max)
		return segue_fail(SEGUE_ECHANGED,
			"stream '%s': its longest key had %u bytes and now has %u: the data set "
			"has changed under it: put it back, or open a new stream",
			shape->spec->name, shape->key_max, key_max);
	if (hash != shape->geometry.hash)
		return segue_fail(SEGUE_EVERSION,
			"stream '%s': the server lays its memory out in another way than this "
			"library, %s (hashes %016" PRIx64 " and %016" PRIx64
			"): use the same version, depth and batch size on both sides",
			shape->spec->name, SEGUE_VERSION_STRING, hash, shape->geometry.hash);
	return 0;
}
