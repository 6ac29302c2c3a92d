# SPDX-License-Identifier: GPL-2.0-only
"""Functions that are in many call traces and to blame for none: the first other one is.

Each list is of patterns of whole names, separated by white space.
"""

import re

# what finds the trouble, prints it, or is called everywhere
_DETECTORS = r"""
    (?:\w+::)*rust_begin_unwind core::\S+ arch_stack_walk arch_\w*atomic\w*
    __asan_\w+ asm_\w+ assertfail atomic\w* _?atomic\w* do_(?:translation|page)_fault
    (?:__|do_)?bad_area\w* __bad_stack bust_\w+ call_undef_hook check_(?:memory_region|bytes)\w*
    check_(?:noncircular|prev\w*|wait_context|irq_usage|usage\w*|preemption\w*|object|slab)
    check_(?:flush_dependency|heap\w*|stack\w*|deadlock|panic_on_warn|sync|(?:un)?map\w*)
    (?:__)?check_(?:object|heap)_\w+ clear_bit constant_test_bit
    (?:_|simple_)?copy_(?:page_)?(?:from|to)_(?:user|iter)\w* _?compound_head core_panic\w*
    debug_object\w* debug_\w+ __debug_\w+ describe_\w+ die_kernel_fault __?die\w* .*_dirty_log
    do_(?:error_)?trap\w* (?:do_)?general_protection do_invalid_op __do_kernel_fault do_kernel_\w+
    (?:do_)?(?:mem|translation|sp_pc|undef|debug|el1)\w*_?abort\w* do_oops do_tag_\w+ do_undefinstr
    (?:__)?dump_stack(?:_lvl)? dump_\w+ el\d\w* end_report error_(?:entry|exit|code) exc_\w+
    fixup_bug fixup_exception fortify_panic __fortify_\w+ handle_(?:bad_stack|stack_overflow)
    handle_bug handle_(?:overflow|shift)\w* __hwasan_\w+ hwasan_\w+ instrument_\w+ invalid_op
    .*_is_static_object (?:__)?kasan_\w+ kcsan_\w+ __kcsan_\w+ kernel_fpu_\w+ kfence_\w+
    __kfence_\w+ (?:__)?kmsan_\w+ (?:__raw_)?(?:read|write)[bwlq](?:_relaxed)? (?:in|out)s?[bwl]
    io(?:read|write)\d+\w* kobject_(?:put|get|cleanup|release) kref_\w+ __kref_\w+ __list_\w+
    list_\w+ memchr\w* memcmp __mem(?:cpy|set|move) memcpy\w* memmove\w* memset\w* __msan_\w+
    nmi_\w+ no_context object_err ODEBUG oops_\w+ .*page_fault.* __panic panic\w* __phys_addr
    print_\w+ __print_\w+ raw_atomic\w* raw_copy_\w+ rb_\w+ __rb_\w+ __?(?:read|write)_once\w*
    refcount_\w+ __refcount_\w+ .*report_bug report_\w+ rust_panic read_word_at_a_time
    ref_tracker_\w+ __sanitizer_\w+ (?:sched_|_)*show_\w+ set_bit __set_page_owner
    skb_(?:over_|under_)?panic skb_pu(?:ll|sh|t) slab_bug slab_err __stack_chk_fail
    _*should_fail\w* _*seqprop\w* spurious_\w+ stack_trace_\w+ .*string
    str(?:n?len|n?cpy|n?cmp|scpy|chr)\w* strn?str
    sysfs_(?:warn_dup|create_dir\w*|do_create_link\w*) sysvec_\w+ _?test_(?:and_\w+_)?bit
    __tsan_\w+ ubsan_\w+ __ubsan_\w+ usercopy_\w+ unwind_\w+ val_to_string variable_test_bit
    __virt_to_phys vpanic _stext _?(?:dev_)?v?printk\w* _dev_\w+ v?s?c?n?printf va_format pointer
    walk_stackframe .*_warn warn_slowpath\w* (?:__)?warn\w* __x86_\w+
"""
# who takes a lock is asked for, not how
_LOCKS = r"""
    assign_lock_key bit_spin_lock call_rwsem\w* __cant_\w+ (?:do_|_|__)*raw_(?:spin|read|write)_\w+
    downgrade_write
    (?:__)?(?:down|up)(?:_(?:read|write|timeout|interruptible|killable|trylock|common)\w*)?
    find_held_lock hlock_class local_bh_\w+ __local_bh_\w+
    lock_(?:acquire|release|downgrade|is_held)\w* lockdep_\w+ .*_lockdep\w* __lock_\w+
    lookup_held_lock mark_(?:lock|usage|held)\w* _*might_\w+ (?:__)?mutex_\w+
    percpu_(?:down|up)_\w+ __percpu_\w+ rcu_(?:lockdep\w*|read_\w+) reacquire_held_locks
    register_lock_class (?:__)?rt_mutex\w* rwlock_bug (?:__)?rwsem_\w+ seqcount_\w+ spin_bug
    spin_\w+ trace_(?:hard|soft)irqs\w* validate_chain write_seq\w+ (?:__)?ww_mutex_\w+
"""
# the same of waiting
_WAITS = r"""
    (?:__|try_to_)*del_timer\w* timer_delete\w* (?:__)?mod_timer\w* insert_work try_to_grab_pending
    __timer_delete\w* (?:__)?queue_(?:delayed_)?work\w* init_timer_key finish_wait
    prepare_to_wait\w* release_sock (?:bit|var)_wait\w* __cancel_work\w* cancel_\w*work\w*
    _cond_resched _+cond_resched cond_resched __cond_resched\w* console_lock context_switch
    debug_smp_processor_id (?:__|do_)*wait_for_\w+ do_wait\w* (?:__)?(?:flush|drain)_workqueue
    flush_work __flush_work\w* folio_lock\w* __folio_lock\w* folio_unlock folio_wait_\w+
    io_schedule\w* jbd2_log_wait\w* ldsem_\w+ lock_page __lock_page\w* lock_sock\w* __lock_sock\w*
    lock_timer_base osq_lock out_of_line_wait\w* perf_trace_\w+ _*preempt_schedule\w*
    __raw_callee_save\w* rcu_barrier\w* _rcu_barrier\w* retint_\w+ rwsem_\w+ __sched_text_start
    __schedule_bug __?schedule\w* schedule schedule_(?:timeout|preempt|hrtimeout)\w*
    smp_call_function\w* __switch_to\w* synchronize_\w+ __synchronize_\w+ _synchronize_\w+
    __this_cpu_\w+ wait_(?:event|woken)\w* (?:__)?wait_on_\w+ __wait_\w+ __wake_up\w*
"""
# and of memory
_ALLOCATORS = r"""
    allocate_slab __alloc_frozen_pages\w* alloc_noprof\w* (?:__)?alloc_pages\w* alloc_page\w*
    alloc_slab_page bad_page bad_range cache_from_obj create_object __do_kmalloc\w* __do_krealloc
    (?:__|do_)?slab_free\w* folio_alloc\w* (?:__)?free_pages\w* free_page\w* __free_slab
    free_to_\w+ free_unref_\w+ __get_free_\w+ get_page_from_freelist kfree\w*
    (?:__)?(?:k|kv|kz|v|vz|kc|kmem_cache_|kmem_|slab_|new_slab|___slab_|__slab_)(?:m?alloc|zalloc|calloc|realloc|free|memdup|strdup|alloc)\w*
    _*kmalloc_large\w* free_large_kmalloc __kmalloc\w* kmalloc\w* kmemdup\w* kmemleak_\w+
    __kmem_\w+ kmem_\w+ krealloc\w* kvfree\w* kzalloc\w* memdup_user\w* mempool_\w+
    new_inode_pseudo new_slab page_alloc\w* post_alloc_hook prep_new_page (?:___?)?slab_\w+
    vmemdup_user warn_alloc
"""
# between hardware or user space and whoever does the work
_ENTRIES = r"""
    (?:.*_)?apic_timer_interrupt\w* arch_call_rest_init arch_cpu_idle arch_do_signal\w*
    __arm64_sys\w* asm_\w+ call_softirq do_el0\w* i386_start_kernel tracesys\w* stub_\w+
    [cC]ompat_[sS]y[sS]\w* check_cpu_stall common_startup\w* cpu_idle\w* cpu_startup\w* _*dabt_\w+
    default_idle\w* do_basic_setup do_exit do_(?:fast_|int80_)\w* do_group_exit do_idle
    do_initcalls?\w* do_one_initcall do_signal (?:__|___)?do_softirq\w* do_syscall\w* __do_sys\w*
    do_vfs_ioctl el0\w* entry_\w+ exit_to_usermode_loop exit_to_user\w* __exit_to_user\w* _*fput
    get_signal gic_\w+ handle_softirqs (?:__)?(?:generic_)?handle_\w*irq\w* __hrtimer\w* hrtimer\w*
    __ia32_\w+ int_ret\w* invoke_softirq __invoke_syscall invoke_syscall\w* irqentry_\w+
    (?:__)?irq_exit\w* kernel_init\w* kernel_thread\w* ksys_\w+ kthread\w* __kthread_\w+
    prepare_exit\w* process_(?:one|scheduled)_works?\w* rcu_check_\w+ rcu_dump_\w+ rcu_gp_\w+
    rcu_sched_clock_irq rest_init ret_from_\w+ ret_to_\w+ run_ksoftirqd scheduler_tick
    secondary_startup\w* __se_sys\w* smpboot_thread_fn _*sock_(?:send|recv)msg\w*
    __softirqentry_text_start [sS]y[sS]_\w+ start_kernel start_secondary syscall_\w+ sysenter_\w+
    system_call\w* sysvec_\w+ __sysvec\w* _*sys_\w+ task_work_run tick_\w+ tracehook_\w+
    .*trigger_\w*backtrace update_process_times vfs_(?:ioctl|read|write|iter\w*) __?vfs_\w+
    wb_workfn worker_thread work_pending x64_sys_call __x64_sys\w* x86_64_start\w*
"""


def _any(*lists: str) -> re.Pattern[str]:
    return re.compile(f"(?:{'|'.join(word for words in lists for word in words.split())})$")


MACHINERY = _any(_DETECTORS, _LOCKS, _WAITS, _ALLOCATORS, r"\w*_interrupt")
ENTRIES = _any(_ENTRIES)
