/*
 * Fuzzes the framing of TFRecord: whatever the bytes, records that are found lie one behind the
 * other and within the stream; and what files are taken for by their first bytes.
 *
 * For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "source/foreign.h"
#include "source/inflate.h"
#include "source/tfrecord/framing.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *bytes;
	size_t size;
	uint64_t next; /* where the next record must be */
};

static int read_input(void *arg, uint64_t position, void *bytes, size_t size)
{
	const struct input *input = arg;

	if (position + size > input->size)
		abort();
	memcpy(bytes, input->bytes + position, size);
	return SEGUE_OK;
}

static int visit(void *arg, uint64_t offset, uint64_t length, uint32_t crc)
{
	struct input *input = arg;

	if (offset != input->next || length > input->size)
		abort();
	input->next = offset + SEGUE_TFRECORD_HEADER + length + SEGUE_TFRECORD_FOOTER;
	if (input->next > input->size ||
		memcmp(&crc, input->bytes + input->next - sizeof(crc), sizeof(crc)) != 0)
		abort();
	return SEGUE_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size, 0};
	struct segue_progress progress = {.total = size};
	const struct segue_foreign *foreign = segue_foreign_of(data, size);
	const struct segue_packing *packing = segue_packing_of(data, size);

	if ((foreign && !foreign->advice) || (packing && !packing->unpack))
		abort();
	int rc = segue_tfrecord_hop(read_input, &input, size, visit, &input, &progress);

	if (rc == SEGUE_OK ? input.next != size : rc != SEGUE_EDATA)
		abort();
	return 0;
}
