/*
 * A stream's spec in its protobuf form: part of a message and of a stored record. Only for wire*.c.
 */
#ifndef SEGUE_CORE_WIRE_SPEC_H
#define SEGUE_CORE_WIRE_SPEC_H

#include "core/spec.h"
#include "core/wire_pb.h"

/* Bytes of scratch that segue_pb_put_spec takes for this spec, at most. */
size_t segue_pb_spec_scratch(const struct segue_spec *spec);

/* Points into `spec` and `scratch`, which must outlive it. Without paths: they travel elsewhere. */
Segue__Pb__Spec *segue_pb_put_spec(
	struct segue_arena *scratch, const struct segue_spec *spec, bool with_paths);

/* NULL: a spec that is missing has none. */
bool segue_pb_spec_has_paths(const Segue__Pb__Spec *pb);

/*
 * A malloc'd spec, its fields within their types and caps, its rules not checked
 * (segue_spec_check). SEGUE_EPROTOCOL names the field; NULL is a spec that is missing.
 */
int segue_pb_get_spec(const Segue__Pb__Spec *pb, struct segue_spec **out);

#endif
