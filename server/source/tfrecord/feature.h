/*
 * One tf.train.Feature that a window has: is it what a field declares, and its values as that
 * field's.
 *
 * Floats and integers may be packed, unpacked or both; bytes are the values themselves in the byte
 * order of the machine. Integers must be in the range of the field's type, floats values of it. As
 * in any protobuf message the last kind of list counts, and several lists of it are one.
 */
#ifndef SEGUE_SOURCE_TFRECORD_FEATURE_H
#define SEGUE_SOURCE_TFRECORD_FEATURE_H

#include "core/spec.h"
#include "source/tfrecord/message.h"

/* What a Feature holds: its field number in the message. */
enum segue_kind {
	SEGUE_KIND_NONE = 0,
	SEGUE_KIND_BYTES = 1,
	SEGUE_KIND_FLOAT = 2,
	SEGUE_KIND_INT64 = 3,
};

/* The text of a kind, for messages. */
const char *segue_kind_name(enum segue_kind kind);
/* The kind of a field's values, when they are not bytes. */
enum segue_kind segue_field_kind(const struct segue_field *field);
/* No Feature with the values of the field is longer than this, but for unknown fields. */
uint64_t segue_feature_limit(const struct segue_field *field);

/*
 * The form that writers use: one list that fills the Feature, its values in one piece that fills
 * the list. True: *kind, and the values are the last *size bytes; they may still be wrong.
 */
bool segue_feature_plain(const uint8_t *bytes, size_t length, enum segue_kind *kind, size_t *size);

/* Whether the values of a plain Feature are those of the field, number and range included. */
bool segue_values_fit(
	const struct segue_field *field, enum segue_kind kind, const uint8_t *bytes, size_t size);
/* Decodes the values of a plain Feature that fit; `out` has room for field->size bytes. */
void segue_values_decode(const struct segue_field *field, enum segue_kind kind,
	const uint8_t *bytes, size_t size, void *out);

/*
 * Any Feature, in whatever form, which the window has: checks it, and decodes it if `out` is not
 * NULL. SEGUE_EDATA: the message is damaged; SEGUE_EMISFIT says what does not fit ("5 values,
 * expected 4").
 */
int segue_feature_decode(const struct segue_field *field, struct segue_piece feature, void *out);
/*
 * The lists of a Feature that count, which need not be in the window: their kind (it is none if
 * there are none), and *from, the Feature from the first of them on. SEGUE_EDATA: the message is
 * damaged; SEGUE_EMISFIT: they are not of a kind that the field may have.
 */
int segue_feature_lists(const struct segue_field *field, struct segue_piece feature,
	enum segue_kind *kind, struct segue_piece *from);
/* SEGUE_EMISFIT: an integer, a float at `bytes`, that is no value of the field's type. */
int segue_feature_fail_integer(const struct segue_field *field, uint64_t value);
int segue_feature_fail_float(const struct segue_field *field, const uint8_t *bytes);
/* SEGUE_EDATA: a list, or values of it, of a wrong wire type. */
int segue_feature_fail_wire(const struct segue_part *part, enum segue_kind kind);

/* The only value of such a Feature of bytes, in the window. SEGUE_EDATA, SEGUE_EMISFIT. */
int segue_feature_text(struct segue_piece feature, const uint8_t **value, size_t *size);

#endif
