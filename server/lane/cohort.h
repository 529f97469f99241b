/*
 * Cohorts: which sequences share batches where lengths are grouped (bucket_boundaries).
 *
 * When no row of a lane lives, the lane looks at its next sequences, so many as the window is:
 * those that wait, looked at before and not begun, oldest first, then new ones. The oldest of them
 * says of which class the cohort is: those of that class fill the rows, in their order, and then
 * rows that get free while another lives. When none of them is left the cohort drains; when no row
 * lives the lane looks again.
 *
 *	window of 6, 2 rows:           a3 b9 a2 b8 a3 b7    (class, segments)
 *	the cohort is of class a:      a3 a2, and the second a3 takes the row of a2
 *	then the lane looks at:        b9 b8 b7 and three new ones; the cohort is of class b
 *
 * So nothing is looked at while a row lives, and what waits is all that a position has to remember:
 * the class of the cohort is that of any of its rows. The oldest always begins next, so no sequence
 * waits for ever. Pure.
 */
#ifndef SEGUE_LANE_COHORT_H
#define SEGUE_LANE_COHORT_H

#include "core/boundaries.h"
#include "core/position.h"

/*
 * Fills the empty rows, in order, with the oldest of class `class` that wait, and takes those out;
 * the others stay in their order. Rows that are not empty stay as they are. Returns how many wait
 * then.
 */
uint32_t segue_cohort_fill(const struct segue_boundaries *boundaries, uint32_t class,
	struct segue_plan_row *waiting, uint32_t count, struct segue_plan_row *rows,
	uint32_t row_count);

#endif
