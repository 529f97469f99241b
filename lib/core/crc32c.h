/*
 * CRC32C (Castagnoli) by the fastest way that the processor has, and TFRecord's masking of it.
 */
#ifndef SEGUE_CORE_CRC32C_H
#define SEGUE_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of a followed by `bytes`, where `crc` is that of a (0: nothing). Any thread. */
uint32_t segue_crc32c(uint32_t crc, const void *bytes, size_t size);

/* x^(8 * size) mod P: what a CRC is multiplied by when `size` more bytes follow. */
uint32_t segue_crc32c_power(uint64_t size);
/* The CRC of ab from those of a and b; `power` is segue_crc32c_power(size of b). */
uint32_t segue_crc32c_combine(uint32_t first, uint32_t second, uint32_t power);

/* As TFRecord stores it, so that a CRC of bytes that hold CRCs stays useful. */
static inline uint32_t segue_crc32c_mask(uint32_t crc)
{
	return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* The way in use: "vpclmulqdq", "sse4.2" or "table". Static. */
const char *segue_crc32c_name(void);

/*
 * Uses the way of that name from now on, in all threads; NULL: the best one. SEGUE_EINVAL: no such
 * name; SEGUE_ENOTFOUND: this processor does not have it. For tests and benchmarks.
 */
int segue_crc32c_select(const char *name);

#endif
