/* The kinds of sources, a row each. */
#include "source/kinds.h"

#include "source/tfrecord/tfrecord.h"

static const struct segue_source_driver *const drivers[] = {
	[SEGUE_SOURCE_TFRECORD] = &segue_source_tfrecord,
};

const struct segue_source_driver *segue_source_driver(const struct segue_spec *spec)
{
	return drivers[spec->source.kind];
}
