/* The kinds of sources that read data themselves: all but the mix. */
#ifndef SEGUE_SOURCE_PLAIN_H
#define SEGUE_SOURCE_PLAIN_H

#include "source/source.h"

/* The driver of the spec's kind, which is one of these. */
const struct segue_source_driver *segue_source_plain_driver(const struct segue_spec *spec);

#endif
