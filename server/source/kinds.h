/* The kinds of sources. */
#ifndef SEGUE_SOURCE_KINDS_H
#define SEGUE_SOURCE_KINDS_H

#include "source/source.h"

/* The driver of the spec's kind, which there is. */
const struct segue_source_driver *segue_source_driver(const struct segue_spec *spec);

#endif
