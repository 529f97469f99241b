/* The kinds of sources: the plain ones, and what is made of them. */
#include "source/kinds.h"

#include "source/mix/mix.h"
#include "source/plain.h"

const struct segue_source_driver *segue_source_driver(const struct segue_spec *spec)
{
	return spec->source.kind == SEGUE_SOURCE_MIX ? &segue_source_mix
						     : segue_source_plain_driver(spec);
}
