//! The contract of `Poller`, clause by clause: each case is generic over the backend, and names
//! its clause.
//!
//! A regression is first a case here, then a fix.

pub(crate) mod channel;
pub(crate) mod closing;
pub(crate) mod connections;
pub(crate) mod errors;
pub(crate) mod identity;
pub(crate) mod interest;
pub(crate) mod kqueue;
pub(crate) mod load;
pub(crate) mod mode;
pub(crate) mod ownership;
pub(crate) mod registered;
pub(crate) mod sharing;
pub(crate) mod thread;
pub(crate) mod waiting;
pub(crate) mod waking;

/// Makes a test of each case in a group, over one backend. The groups: all cases, those that need neither real time nor
/// a poller with a descriptor, those about several handles, and those about kqueue.
macro_rules! conformance {
    (simulated: $poller:ty) => {
        conformance! { @each $poller;
            closing::a_half_close_is_read_closed_and_readable,
            closing::edge_reports_the_end_as_an_arrival,
            closing::a_full_hang_up_closes_both_ways,
            closing::a_hang_up_of_both_sides_over_tcp_closes_both_ways,
            closing::a_refused_connection_is_an_error,
            closing::a_reset_connection_is_an_error,
            closing::a_connection_that_was_reset_lets_no_write_block,
            closing::ones_own_shutdown_of_reading_is_read_closed,
            closing::ones_own_shutdown_of_writing_lets_no_write_block,
            closing::ones_own_shutdown_of_both_ways_closes_both_ways,
            closing::a_pipe_without_a_writer_is_read_closed,
            closing::a_pipe_without_a_reader_lets_no_write_block,
            closing::a_pty_that_hung_up_is_read_closed,
            closing::delete_takes_back_pending_readiness,
            closing::a_deleted_descriptor_is_silent_after_its_number_is_used_again,
            closing::a_closed_descriptor_is_silent,
            closing::a_token_distinguishes_a_stale_event_from_a_fresh_one,
            errors::delete_of_unknown_fd_is_not_found,
            errors::modify_of_unknown_fd_is_not_found,
            errors::a_second_delete_is_not_found,
            errors::a_descriptor_can_be_added_again_after_delete,
            errors::a_bad_descriptor_is_the_kernels_own_error,
            errors::a_failed_call_leaves_the_registration_as_it_was,
            identity::fd_kind_and_token_come_back,
            identity::modify_replaces_kind_and_token,
            identity::an_arrival_after_modify_is_reported_as_modified,
            identity::a_datagram_socket_that_connects_again_is_still_reported,
            identity::descriptors_are_distinguished,
            interest::readable_is_reported_only_with_its_interest,
            interest::writable_is_reported_only_with_its_interest,
            interest::both_directions_are_reported_together,
            interest::a_listening_socket_is_readable_when_a_client_connects,
            interest::a_listening_socket_is_never_writable,
            interest::a_connection_is_writable_once_it_is_made,
            interest::out_of_band_data_is_priority,
            interest::out_of_band_data_is_reported_next_to_data,
            interest::none_is_silent_about_data,
            interest::none_is_silent_about_a_half_close,
            interest::none_keeps_the_registration,
            interest::every_interest_can_become_every_other,
            interest::modify_takes_back_pending_readiness,
            load::every_descriptor_is_one_event,
            load::every_edge_is_reported_once_beyond_the_first_buffer,
            load::every_oneshot_is_silenced_in_both_directions,
            mode::level_repeats_until_drained,
            mode::level_reports_room_until_it_is_filled,
            mode::edge_is_reported_once_for_each_arrival,
            mode::edge_reports_new_data_behind_unread_data,
            mode::edge_is_reported_once_for_each_datagram,
            mode::a_peek_takes_no_readiness_away,
            mode::edge_reports_room_once_it_comes_back,
            mode::edge_reports_readiness_that_add_and_modify_find,
            mode::oneshot_is_reported_once,
            mode::oneshot_silences_all_its_interests_together,
            mode::oneshot_stays_registered,
            mode::oneshot_reports_both_directions_in_one_event,
            mode::oneshot_reports_readiness_that_modify_finds,
            mode::every_mode_can_become_every_other,
            mode::each_of_two_pollers_reports_in_its_own_mode,
            ownership::a_dropped_poller_leaves_registered_descriptors_open,
            ownership::a_close_ends_the_connection_though_it_is_registered,
            connections::a_connection_is_found_by_its_event_and_by_its_key,
            connections::a_stale_event_finds_no_connection,
            connections::a_stale_event_finds_no_connection_of_another_table,
            connections::a_connection_that_is_refused_is_closed,
            connections::a_second_reference_to_a_connection_is_refused,
            connections::a_connection_that_was_closed_elsewhere_stays_until_it_is_removed,
            connections::a_modified_connection_keeps_its_key,
            connections::the_connections_that_stay_are_found_after_a_removal,
            connections::connections_are_silent_after_a_drop_though_duplicates_live,
            connections::a_connection_is_deleted_before_it_is_closed,
            registered::a_registered_source_is_reported_as_its_object_says,
            registered::a_dropped_source_is_silent_though_a_duplicate_lives,
            registered::a_source_is_deleted_before_it_is_closed,
            registered::a_source_that_is_taken_out_is_open_and_deleted,
            registered::an_object_of_another_descriptor_is_refused,
            registered::a_source_that_is_refused_is_closed,
            registered::a_panic_leaves_nothing_registered,
            registered::a_source_that_changes_its_descriptor_is_known_by_the_first,
            registered::a_registered_source_outlives_its_poller,
            registered::a_source_that_was_deleted_by_its_number_is_dropped_in_silence,
            registered::a_registered_source_moves_to_another_thread,
            registered::a_registered_source_is_registered_with_a_second_poller,
            registered::a_registered_source_reads_and_writes,
            registered::a_registered_source_is_flushed,
            registered::a_pipe_is_read_while_it_is_registered,
            registered::a_library_owns_a_registered_source,
            thread::registering_works_while_events_are_borrowed,
            thread::many_threads_register_at_once,
            thread::the_last_registration_of_each_thread_is_reported,
            waiting::zero_polls,
            waiting::a_wait_works_through_a_trait_object,
        }
    };
    ($poller:ty) => {
        conformance!(simulated: $poller);
        conformance! { @each $poller;
            closing::the_last_output_of_a_child_is_read_by_a_loop_that_watches_for_both,
            identity::a_poller_watches_another_poller,
            load::thousands_ready_at_once_are_all_reported,
            mode::no_arrival_of_a_stream_is_lost,
            ownership::a_dropped_poller_closes_its_own_descriptors,
            ownership::a_poller_closed_behind_its_back_is_bad,
            ownership::an_exec_closes_a_pollers_descriptors,
            ownership::without_room_for_its_descriptors_no_poller_is_half_made,
            thread::a_registration_reaches_a_blocked_wait,
            thread::a_modification_reaches_a_blocked_wait,
            thread::a_poller_moves_to_another_thread,
            thread::threads_register_on_while_their_poller_is_dropped,
            waiting::a_timeout_is_never_early,
            waiting::a_wait_ends_when_an_event_comes,
            waiting::any_negative_timeout_is_infinite,
            waiting::a_timeout_beyond_every_clock_is_infinite,
            waiting::a_signal_does_not_end_a_wait,
            waiting::a_signal_does_not_change_a_timeout,
            waiting::a_deadline_that_passes_in_a_handler_ends_the_wait,
            waiting::a_stop_and_continue_does_not_end_a_wait,
            waiting::a_stop_and_continue_does_not_change_a_timeout,
            waiting::an_arrival_during_a_handler_is_reported_past_the_deadline,
            waiting::an_arrival_during_a_stop_is_reported_past_the_deadline,
            waking::a_wake_before_the_wait_is_reported_once,
            waking::a_wake_is_an_event_of_no_registered_descriptor,
            waking::a_wake_ends_a_blocked_wait,
            waking::a_waker_that_is_created_during_a_wait_ends_it,
            waking::a_wake_is_reported_next_to_ready_descriptors,
            waking::several_wakers_are_told_apart,
            waking::the_wake_of_a_dropped_waker_is_reported,
            waking::thousands_of_wakers_come_and_go,
            waking::a_wake_of_a_dropped_poller_is_harmless,
            waking::wakes_change_no_timeout,
            waking::no_wake_of_many_threads_is_lost,
            waking::no_wake_is_lost_under_signals,
            waking::a_wake_makes_a_watched_poller_readable,
            waking::a_poller_that_is_watched_late_is_readable,
            connections::a_wake_finds_no_connection,
            waking::an_os_poller_sees_the_wake_of_a_watched_poller,
            channel::sent_values_are_reported_once_in_order,
            channel::values_that_are_left_are_reported_by_each_wait,
            channel::an_event_that_nobody_acts_on_is_returned_again,
            channel::a_watched_poller_is_readable_while_values_are_left,
            channel::only_channels_with_values_are_reported,
            channel::the_event_of_a_dropped_receiver_is_not_repeated,
            channel::a_value_sent_while_others_are_taken_is_not_lost,
            channel::a_panic_while_values_are_taken_loses_none_of_the_others,
            channel::values_can_be_taken_without_an_event,
            channel::the_last_senders_drop_is_reported,
            channel::the_last_drop_ends_a_blocked_wait,
            channel::without_a_receiver_a_value_comes_back,
            channel::a_full_channel_gives_the_value_back,
            channel::a_bound_that_cannot_be_had_is_refused,
            channel::a_sender_blocks_while_there_is_no_room,
            channel::no_value_of_many_threads_is_lost,
            channel::no_value_of_many_threads_that_wait_for_room_is_lost,
            channel::each_value_ends_a_blocked_wait,
            channel::the_last_drop_of_many_threads_is_reported,
            channel::the_ends_are_as_shareable_as_those_of_std,
            waiting::ten_thousand_signals_a_second_change_no_timeout,
            waiting::ten_thousand_signals_a_second_lose_no_event,
        }
    };
    (shared: $poller:ty) => {
        conformance! { @each $poller;
            sharing::a_oneshot_goes_to_one_thread_and_no_message_is_lost,
            sharing::no_message_of_a_level_or_an_edge_is_lost,
            sharing::a_oneshot_that_is_registered_beside_waits_is_reported_once,
            sharing::the_last_of_many_modifications_beside_waits_is_reported,
            sharing::a_wake_ends_one_wait,
            sharing::a_wake_that_stays_ends_every_wait,
            sharing::a_handle_that_is_dropped_leaves_the_others_waiting,
            sharing::buffers_and_spinning_are_of_each_handle,
            load::a_bound_holds_for_each_wait_whatever_the_capacity,
            load::a_bound_holds_where_two_filters_are_one_event,
            load::a_bound_can_change_and_be_removed,
            load::a_new_handle_has_the_bound_of_its_origin,
            waiting::an_arrival_during_a_handler_is_reported_past_a_spin,
            waking::a_bound_loses_neither_wakes_nor_events,
            waking::a_waker_is_in_a_slice_once,
            channel::a_handle_that_is_dropped_leaves_its_channel_to_another,
            channel::a_watched_poller_with_a_bound_is_readable_while_values_are_left,
            waking::a_wake_goes_to_exactly_one_handle,
            waking::a_wake_goes_to_the_handle_that_sleeps,
            waking::no_wake_of_many_threads_to_many_handles_is_lost,
            waking::a_full_wait_passes_a_wake_on,
            waking::a_wait_that_begins_with_wakes_leaves_a_sleeper_its_own,
        }
    };
    (kqueue: $poller:ty) => {
        conformance! { @each $poller;
            kqueue::a_broken_pipe_is_refused_or_reported,
            kqueue::a_hang_up_is_reported_in_the_directions_asked_for,
            kqueue::an_accept_is_an_edge_while_clients_are_left,
            kqueue::each_interest_has_edges_of_its_own,
            kqueue::exclusive_has_no_effect,
            kqueue::ones_own_shutdown_of_writing_is_write_closed_at_once,
            kqueue::a_socket_shut_down_for_reading_gets_no_edge_of_a_reset_on_some,
            kqueue::a_closed_descriptor_is_silent_though_a_duplicate_lives,
            kqueue::a_oneshot_that_became_something_else_is_not_re_armed_as_one,
            kqueue::a_oneshot_whose_descriptor_is_gone_cannot_be_modified,
            kqueue::a_refused_add_leaves_nothing_registered,
            kqueue::adding_twice_replaces,
            kqueue::hang_ups_are_not_reported_without_interest,
            kqueue::the_end_is_reported_with_interest_in_priority,
        }
    };
    (@each $poller:ty; $($file:ident::$case:ident,)*) => {
        $(#[test]
        fn $case() {
            $crate::support::subprocess::in_subprocess!($crate::conformance::$file::$case::<$poller>);
        })*
    };
}

pub(crate) use conformance;
