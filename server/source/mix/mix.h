/* The source that mixes others by weight: each part is opened by the driver of its own kind. */
#ifndef SEGUE_SOURCE_MIX_MIX_H
#define SEGUE_SOURCE_MIX_MIX_H

#include "source/source.h"

extern const struct segue_source_driver segue_source_mix;

#endif
