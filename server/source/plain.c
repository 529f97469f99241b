/* The kinds of sources that read data themselves, a row each. */
#include "source/plain.h"

#include "source/arrays/arrays.h"
#include "source/log/reading.h"
#include "source/seqfile/seqfile.h"
#include "source/tfrecord/tfrecord.h"

static const struct segue_source_driver *const drivers[] = {
	[SEGUE_SOURCE_TFRECORD] = &segue_source_tfrecord,
	[SEGUE_SOURCE_FILES] = &segue_source_files,
	[SEGUE_SOURCE_ARRAYS] = &segue_source_arrays,
	[SEGUE_SOURCE_LOG] = &segue_source_log,
};

const struct segue_source_driver *segue_source_plain_driver(const struct segue_spec *spec)
{
	return drivers[spec->source.kind];
}
