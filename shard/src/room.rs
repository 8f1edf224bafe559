//! Whether memory can be had. Where it cannot, an allocation ends the process; what a client asks to be copied is
//! therefore asked for here before, and refused.

/// Smaller allocations are left to chance: a process that cannot have so much is at its end anyway.
pub const PROBED_BYTES_MIN: usize = 1 << 20;

/// Whether so many bytes can be had, in one piece.
pub fn has_room_for(bytes: usize) -> bool {
    bytes < PROBED_BYTES_MIN || Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}
