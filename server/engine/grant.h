/*
 * A grant: all that a lease consists of while it is in force. Feed and ring, carry, lease page,
 * event.
 *
 * Making one reads data and store, so it runs on a loader thread (segue_grant_make), and stores the
 * grant before anything of it is sent. It then belongs to the server's thread, and is watched by
 * the committer until its last commit is on disk.
 *
 *	     committer: add         finish, held = false
 *	MADE ──────────────► WATCHED ───────────────────► ENDING ─────┐ the last commit is on disk,
 *	                        │   finish, held = true               ▼ or can never be
 *	                        └───────────────────────► LEAVING ─► FORGOTTEN
 *
 * Apart from that: `refused`, which the store may say of a lane in any of the middle three, and
 * which its worker's side looks at under the filler's lock.
 */
#ifndef SEGUE_ENGINE_GRANT_H
#define SEGUE_ENGINE_GRANT_H

#include "engine/granted.h"
#include "engine/order.h"

/*
 * Makes and stores it. SEGUE_ESTART (mode NONE and the lane has a position: names step and date),
 * SEGUE_ETOKEN (names what differs), SEGUE_EPROTOCOL (an offer that cannot be), SEGUE_ECHANGED (one
 * behind sequences that the log has no more), and what source, store and memory say; the store is
 * then as before.
 */
int segue_grant_make(const struct segue_grant_order *order, struct segue_grant **out);
/*
 * Whether the token of a RESTORE is whole, and of this lane of this stream: SEGUE_ETOKEN; and the
 * step that it goes back to. Of the order only place, spec, plan, fingerprint and bulk are looked
 * at.
 */
int segue_grant_check_token(const struct segue_grant_order *order, uint64_t *step);
/* Takes a way that the picture above has. */
void segue_grant_go(struct segue_grant *grant, enum segue_grant_state to);
/* Storage failed (code), or works again (0): the holder sees it, and nothing is published. */
void segue_grant_storage(struct segue_grant *grant, int code, const char *detail);
/* The same for this lane alone, and for good. */
void segue_grant_refuse(struct segue_grant *grant, int code, const char *detail);
/* What its holder has been told: a code and the text; 0: nothing is wrong. */
int segue_grant_failure(struct segue_grant *grant, char text[SEGUE_ERROR_TEXT]);
/* Whether something is committed and not on disk. */
bool segue_grant_owes(struct segue_grant *grant);
/* Says again that the lane was refused, if it was, to a holder that asks for a transaction. */
void segue_grant_remind(struct segue_grant *grant);
/*
 * The origin (struct segue_lane_record) of the lane at `step`, at or behind the grant's own: of
 * streams whose rows begin with what was kept; 0 of others.
 */
uint64_t segue_grant_origin(const struct segue_grant *grant, uint64_t step);
/* Frees it; its filler is closed, or was never started, or others use it. NULL is fine. */
void segue_grant_destroy(struct segue_grant *grant);

#endif
