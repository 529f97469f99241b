/*
 * Protobuf fields checked and built: what wire*.c share, the only files that see protobuf-c.
 *
 * A check that fails is SEGUE_EPROTOCOL and names `field`. What is built lies in `scratch`, which
 * is sized for what is packed: running out of it is our own bug.
 */
#ifndef SEGUE_CORE_WIRE_PB_H
#define SEGUE_CORE_WIRE_PB_H

#include "core/wire.h"
#include "segue.pb-c.h"

#if PROTOBUF_C_VERSION_NUMBER < 1004001
#error "protobuf-c before 1.4.1 reads beyond its input (CVE-2022-48468)"
#endif

/* What each thing taken from an arena is aligned to. */
#define SEGUE_PB_ALIGN 16

/* NULL, and the detail says so of `name`, if the bytes are no such message or the arena is too
 * small for it. */
ProtobufCMessage *segue_pb_parse(const char *name, const ProtobufCMessageDescriptor *descriptor,
	const void *bytes, size_t size, struct segue_arena *arena);

int segue_pb_check_range(const char *field, uint64_t value, uint64_t least, uint64_t most);
/* UTF-8 of at most `most` bytes. */
int segue_pb_check_text(const char *field, const char *text, size_t most);
int segue_pb_check_time(const char *field, int64_t value);
/* Bytes that are to become a C string. */
int segue_pb_check_string(const char *field, const ProtobufCBinaryData *from, size_t most);
/* Exactly `size` bytes into `out`. */
int segue_pb_get_bytes(const char *field, const ProtobufCBinaryData *from, void *out, size_t size);
/* SEGUE_ENOMEM, with a detail. */
int segue_pb_fail_memory(void);

/* `count` zeroed things of `size` bytes. */
void *segue_pb_build(struct segue_arena *scratch, size_t count, size_t size);
/* A text for people: cut to `most` bytes, and '?' for what is not UTF-8 (names of files can be). */
char *segue_pb_put_text(struct segue_arena *scratch, const char *text, size_t most);
/* Points to `bytes`. */
ProtobufCBinaryData segue_pb_put_bytes(const void *bytes, size_t size);

#endif
