/*
 * A stream's spec in its protobuf form: part of a message and of a stored record. Only for wire*.c.
 */
#ifndef SEGUE_CORE_WIRE_SPEC_H
#define SEGUE_CORE_WIRE_SPEC_H

#include "core/spec.h"
#include "core/wire_pb.h"

/* Bytes of scratch that segue_pb_put_spec takes for this spec, at most. */
size_t segue_pb_spec_scratch(const struct segue_spec *spec);

/* What there is of a spec: its paths may travel elsewhere, its source be the stream's own. */
enum segue_pb_parts { SEGUE_PB_ALL, SEGUE_PB_NO_PATHS, SEGUE_PB_NO_SOURCE };

/* Points into `spec` and `scratch`, which must outlive it. */
Segue__Pb__Spec *segue_pb_put_spec(
	struct segue_arena *scratch, const struct segue_spec *spec, enum segue_pb_parts parts);

/* NULL: a spec that is missing has none. */
bool segue_pb_spec_has_paths(const Segue__Pb__Spec *pb);

/*
 * A malloc'd spec, its fields within their types and caps, its rules not checked
 * (segue_spec_check). SEGUE_EPROTOCOL names the field; NULL is a spec that is missing. Paths may be
 * missing; the source is or is not there, as `parts` says.
 */
int segue_pb_get_spec(
	const Segue__Pb__Spec *pb, enum segue_pb_parts parts, struct segue_spec **out);

#endif
