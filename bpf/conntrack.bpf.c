// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Mirrors the translated (NATed) part of the kernel's conntrack table into a hash map, for every
 * network namespace at once. Entry points are at the end; user space chooses which ones to load.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "conntrack.h"

#define AF_INET 2
#define AF_INET6 10

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

#define CLONE_NEWNET 0x40000000

/* enum ip_conntrack_dir; and the NF_CT_ZONE_DIR_* bits, one per direction */
#define DIR_ORIGINAL 0
#define DIR_REPLY 1

/* enum ip_conntrack_status */
#define IPS_DYING_BIT 9
#define IPS_NAT_CLASH_BIT 12

/* sk_buff._nfct, enum ip_conntrack_info, and a verdict of netfilter */
#define NFCT_INFOMASK 7UL
#define IP_CT_IS_REPLY 3
#define NF_ACCEPT 1

/* The kernel's NLM portid of the loader's socket: its dump alone is listened to. */
const volatile __u32 seed_portid = 0;
/* Settings of the spec. */
const volatile __u8 tcpv6_enabled = 1;
const volatile __u8 udpv6_enabled = 1;
/* Written by user space before each step of a load. */
struct conntrack_load load_step = { .generation = 1 };

/* Whether conntrack_closed may hold anything. */
__u64 has_closed;

const char object_license[] SEC("license") = "GPL";
/* Read by user space before it hands the file to libbpf, which passes over this section. */
const char about[] SEC("btfleet") = "layout=2 arch=" TARGET_ARCH;
_Static_assert(CONNTRACK_LAYOUT == 2, "say the new layout in the btfleet section as well");

/* Sizes are the spec's; the loader sets them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_value);
} conntrack_live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_value);
} conntrack_closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* When the last namespace ended that had an inode number. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} netns_ended SEC(".maps");

/* What running calls of a function were called with, by where their stack frames begin. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} calls SEC(".maps");

/* Both directions of a flow, as keys. */
struct flow {
	struct conntrack_key orig;
	struct conntrack_key reply;
};

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

/*
 * What a function returns that is not inlined and has nothing to say. Of one that always returns
 * the same, clang (from 19 on) drops the result, and whatever is left in its register then is
 * refused by the verifier where it is a pointer to the stack.
 */
static __always_inline int done(void)
{
	int nothing = 0;

	barrier_var(nothing);
	return nothing;
}

#define OFFSET(type, field) __builtin_preserve_field_info(((type *)0)->field, BPF_FIELD_BYTE_OFFSET)
#define CT_OFFSET(field) OFFSET(struct nf_conn, field)
#define TUPLE_OFFSET(field) OFFSET(struct nf_conntrack_tuple, field)

/*
 * What is read of a flow lies side by side in every kernel so far (zone, tuplehash, status,
 * ct_net), so one copy takes it all. Where each member lies inside is relocated like any other
 * offset.
 */
struct copy {
	__u64 words[18];
};

/* From here; eight bytes at a time are copied fastest. */
static __always_inline __u32 copy_start(void)
{
	if (bpf_core_field_exists(((struct nf_conn *)0)->zone))
		return CT_OFFSET(zone) & ~7U;
	return CT_OFFSET(tuplehash);
}

static __always_inline const void *copied(const struct copy *copy, __u32 offset)
{
	return (const char *)copy + (offset - copy_start());
}

static __always_inline int copy_flow(struct copy *copy, const struct nf_conn *ct)
{
	/* Known when the program is loaded: on a kernel with another layout every read fails */
	if (CT_OFFSET(ct_net) + sizeof(struct net *) - copy_start() > sizeof(*copy))
		return -1;
	return bpf_probe_read_kernel(copy, sizeof(*copy), (const char *)ct + copy_start());
}

static __always_inline bool same_addr(const void *a, const void *b)
{
	const __u32 *one = a, *other = b;

	return !((one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) |
		 (one[3] ^ other[3]));
}

/*
 * Compares tuples and no status bits: the kernel moves the point where it sets them (IPS_CONFIRMED
 * comes after the insertion since 6.16 and its stable back-ports).
 */
static __always_inline bool is_translated(const struct copy *copy)
{
	const char *orig = copied(copy, CT_OFFSET(tuplehash[DIR_ORIGINAL].tuple));
	const char *reply = copied(copy, CT_OFFSET(tuplehash[DIR_REPLY].tuple));
	__u8 protocol = *(const __u8 *)(orig + TUPLE_OFFSET(dst.protonum));
	__be16 sport = *(const __be16 *)(orig + TUPLE_OFFSET(src.u.all));

	if (!same_addr(orig + TUPLE_OFFSET(src.u3), reply + TUPLE_OFFSET(dst.u3)) ||
	    !same_addr(orig + TUPLE_OFFSET(dst.u3), reply + TUPLE_OFFSET(src.u3)))
		return true;
	/* An ICMP reply has another type by nature, and the id on the same side. */
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return sport != *(const __be16 *)(reply + TUPLE_OFFSET(src.u.all));
	return sport != *(const __be16 *)(reply + TUPLE_OFFSET(dst.u.all)) ||
	       *(const __be16 *)(orig + TUPLE_OFFSET(dst.u.all)) !=
		       *(const __be16 *)(reply + TUPLE_OFFSET(src.u.all));
}

/* For IPv4 the kernel leaves all words but the first zero: it hashes them, too. */
static __always_inline void copy_addr(struct conntrack_addr *to, const void *from)
{
	const __u32 *word = from;

	to->word[0] = word[0];
	to->word[1] = word[1];
	to->word[2] = word[2];
	to->word[3] = word[3];
}

static __always_inline void fill_key(struct conntrack_key *key, const char *tuple, __u32 netns)
{
	key->netns = netns;
	key->zone = 0;
	key->family = *(const __u16 *)(tuple + TUPLE_OFFSET(src.l3num));
	key->protocol = *(const __u8 *)(tuple + TUPLE_OFFSET(dst.protonum));
	copy_addr(&key->saddr, tuple + TUPLE_OFFSET(src.u3));
	copy_addr(&key->daddr, tuple + TUPLE_OFFSET(dst.u3));
	key->sport = bpf_ntohs(*(const __be16 *)(tuple + TUPLE_OFFSET(src.u.all)));
	key->dport = bpf_ntohs(*(const __be16 *)(tuple + TUPLE_OFFSET(dst.u.all)));
}

static __noinline int fill_keys(struct flow *flow, const struct copy *copy)
{
	const struct net *net = *(struct net *const *)copied(copy, CT_OFFSET(ct_net));
	__u32 netns;

	if (bpf_core_read(&netns, sizeof(netns), &net->ns.inum))
		return -1;
	fill_key(&flow->orig, copied(copy, CT_OFFSET(tuplehash[DIR_ORIGINAL].tuple)), netns);
	fill_key(&flow->reply, copied(copy, CT_OFFSET(tuplehash[DIR_REPLY].tuple)), netns);
	if (bpf_core_field_exists(((struct nf_conn *)0)->zone)) {
		const char *zone = copied(copy, CT_OFFSET(zone));
		__u16 id = *(const __u16 *)(zone + OFFSET(struct nf_conntrack_zone, id));
		__u8 directions = *(const __u8 *)(zone + OFFSET(struct nf_conntrack_zone, dir));

		if (directions & 1 << DIR_ORIGINAL)
			flow->orig.zone = id;
		if (directions & 1 << DIR_REPLY)
			flow->reply.zone = id;
	}
	return 0;
}

static __always_inline bool is_enabled(const struct conntrack_key *key)
{
	if (key->family != AF_INET6)
		return true;
	if (key->protocol == IPPROTO_TCP)
		return tcpv6_enabled;
	if (key->protocol == IPPROTO_UDP)
		return udpv6_enabled;
	return true;
}

/* An int on purpose: before 6.4 the upper half of a map operation's result is undefined. */
static __always_inline int write_direction(const struct conntrack_key *key,
					   const struct conntrack_key *other,
					   struct conntrack_value *value, __u8 direction,
					   __u64 map_flags)
{
	value->saddr = other->saddr;
	value->daddr = other->daddr;
	value->sport = other->sport;
	value->dport = other->dport;
	value->zone = other->zone;
	value->flags = direction | (value->flags & CONNTRACK_SEEDED);
	return bpf_map_update_elem(&conntrack_live, key, value, map_flags);
}

/* Both directions or none. */
static __noinline int write_flow(const struct flow *flow, struct conntrack_value *value)
{
	int err;

	err = write_direction(&flow->orig, &flow->reply, value, CONNTRACK_ORIG, BPF_ANY);
	if (err)
		return err;
	err = write_direction(&flow->reply, &flow->orig, value, 0, BPF_ANY);
	if (err)
		bpf_map_delete_elem(&conntrack_live, &flow->orig);
	return err;
}

#define E2BIG 7
#define EEXIST 17

static __always_inline void count_failed_write(int err)
{
	count(err == -E2BIG ? COUNTER_LIVE_FULL : COUNTER_LIVE_UPDATE_FAILED);
}

/*
 * A flow that is not stored must not be answered by an older one with one of its tuples. Live
 * entries need no look: a tuple is free only when its former owner has left conntrack_live. Two
 * look-ups cost more than all the rest, so hosts where nothing was ever closed are spared them.
 */
static __noinline int forget_closed(const struct copy *copy)
{
	struct flow flow;
	bool is_there;

	if (!has_closed)
		return done();
	if (fill_keys(&flow, copy)) {
		count(COUNTER_INSERT_READ_FAILED);
		return done();
	}
	is_there = bpf_map_lookup_elem(&conntrack_closed, &flow.orig);
	if (is_there)
		bpf_map_delete_elem(&conntrack_closed, &flow.orig);
	if (bpf_map_lookup_elem(&conntrack_closed, &flow.reply)) {
		bpf_map_delete_elem(&conntrack_closed, &flow.reply);
		is_there = true;
	}
	if (is_there)
		count(COUNTER_SUPERSEDED);
	return done();
}

static __noinline int on_insert(const struct nf_conn *ct)
{
	struct conntrack_value value = {};
	struct flow flow;
	struct copy copy;
	int err;

	count(COUNTER_INSERT_HITS);
	if (copy_flow(&copy, ct)) {
		count(COUNTER_INSERT_READ_FAILED);
		return done();
	}
	if (!is_translated(&copy)) {
		count(COUNTER_INSERT_UNTRANSLATED);
		return forget_closed(&copy);
	}
	if (fill_keys(&flow, &copy)) {
		count(COUNTER_INSERT_READ_FAILED);
		return done();
	}
	if (!is_enabled(&flow.orig)) {
		count(COUNTER_INSERT_DISABLED);
		return forget_closed(&copy);
	}
	value.ct = (__u64)ct;
	value.created_ns = bpf_ktime_get_ns();
	err = write_flow(&flow, &value);
	if (err)
		count_failed_write(err);
	else
		count(COUNTER_INSERTED);
	return done();
}

enum removal { NOT_THERE, REMOVED, SUCCESSOR };

/* The copy in conntrack_closed comes first, so that a reader finds the flow in one or the other. */
static __always_inline enum removal move_to_closed(const struct conntrack_key *key, __u64 ct,
						   __u64 now)
{
	struct conntrack_value value, *found;

	found = bpf_map_lookup_elem(&conntrack_live, key);
	if (!found)
		return NOT_THERE;
	/* A cookie of 0 was taken in without its address: tuples are unique, so it is this flow. */
	if (found->ct && found->ct != ct)
		return SUCCESSOR;
	value = *found;
	value.closed_ns = now;
	if (bpf_map_update_elem(&conntrack_closed, key, &value, BPF_ANY))
		count(COUNTER_CLOSED_UPDATE_FAILED);
	/* After the entry: who resets this looks for entries then */
	has_closed = 1;
	bpf_map_delete_elem(&conntrack_live, key);
	return REMOVED;
}

static __always_inline bool is_dying(const struct nf_conn *ct)
{
	return BPF_CORE_READ(ct, status) & 1UL << IPS_DYING_BIT;
}

static __noinline int remove_flow(const struct nf_conn *ct)
{
	enum removal orig, reply;
	struct flow flow;
	struct copy copy;
	__u64 now;

	if (copy_flow(&copy, ct)) {
		count(COUNTER_DELETE_READ_FAILED);
		return done();
	}
	if (!is_translated(&copy))
		return done();
	if (fill_keys(&flow, &copy)) {
		count(COUNTER_DELETE_READ_FAILED);
		return done();
	}
	now = bpf_ktime_get_ns();
	orig = move_to_closed(&flow.orig, (__u64)ct, now);
	reply = move_to_closed(&flow.reply, (__u64)ct, now);
	if (orig == REMOVED || reply == REMOVED)
		count(COUNTER_DELETED);
	if (orig == SUCCESSOR || reply == SUCCESSOR)
		count(COUNTER_DELETE_SUCCESSOR);
	return done();
}

/*
 * At the entry of __nf_ct_delete_from_lists(): once a flow, when it is in the kernel's hash still,
 * so no successor has its tuple yet. Soft interrupts are off: no other flow comes or goes on this
 * CPU while the program runs, which the kernel would pass over in silence.
 */
static __noinline int on_delete(const struct nf_conn *ct)
{
	count(COUNTER_DELETE_HITS);
	return remove_flow(ct);
}

/*
 * At the entry of nf_ct_remove_expectations(), which older kernels call from the same place, under
 * the locks of the flow's buckets. They call it for flows that live on and for some that are gone,
 * too: IPS_DYING tells the former, an entry's cookie the latter.
 */
static __noinline int on_remove_expectations(const struct nf_conn *ct)
{
	return is_dying(ct) ? on_delete(ct) : 0;
}

/*
 * Where inserting is seen only when it is done, the flow may be deleted before it is written, and
 * its delete program has come too early then. IPS_DYING is set before that program runs: so either
 * the bit shows here once the flow is written, or the program is still to come and finds it.
 */
static __noinline int on_inserted(const struct nf_conn *ct)
{
	/* The loser of a clash is in the table by half, and conntrack does not list it. */
	if (BPF_CORE_READ(ct, status) & (1UL << IPS_DYING_BIT | 1UL << IPS_NAT_CLASH_BIT))
		return done();
	on_insert(ct);
	return is_dying(ct) ? remove_flow(ct) : 0;
}

/*
 * What __nf_conntrack_confirm() has put into the table. Read when it returns, since it may have
 * given the packet the winner of a clash. It lets replies pass without inserting anything.
 */
static __always_inline int on_confirmed(const struct sk_buff *skb)
{
	unsigned long nfct = BPF_CORE_READ(skb, _nfct);
	const struct nf_conn *ct = (const struct nf_conn *)(nfct & ~NFCT_INFOMASK);

	if (!ct || (nfct & NFCT_INFOMASK) >= IP_CT_IS_REPLY)
		return 0;
	return on_inserted(ct);
}

/*
 * A call is known by its stack frame: no two that run have the same, whichever task or interrupt
 * they are in. What a missed return has left is overwritten by the next call from there.
 */
static __always_inline __u64 frame_at_entry(struct pt_regs *ctx)
{
	return PT_REGS_SP(ctx);
}

static __always_inline __u64 frame_at_return(struct pt_regs *ctx)
{
#if defined(__TARGET_ARCH_x86)
	return PT_REGS_SP(ctx) - sizeof(__u64); /* the return address has been taken off */
#else
	return PT_REGS_SP(ctx);
#endif
}

static __always_inline int note_call(__u64 frame, const void *argument)
{
	__u64 value = (__u64)argument;

	bpf_map_update_elem(&calls, &frame, &value, BPF_ANY);
	return 0;
}

/* What the call that returns was made with, NULL if it was not noted. */
static __always_inline void *take_call(__u64 frame)
{
	__u64 *found = bpf_map_lookup_elem(&calls, &frame), value;

	if (!found)
		return NULL;
	value = *found;
	bpf_map_delete_elem(&calls, &frame);
	return (void *)value;
}

#define ALREADY_THERE 1

/* Written if it is not there, marked as seen if it is; a negative number where it is another's. */
static __always_inline int seed_direction(const struct conntrack_key *key,
					  const struct conntrack_key *other,
					  struct conntrack_value *value, __u8 direction)
{
	struct conntrack_value *found;
	int err;

	err = write_direction(key, other, value, direction, BPF_NOEXIST);
	if (err != -EEXIST)
		return err;
	found = bpf_map_lookup_elem(&conntrack_live, key);
	if (!found || found->ct != value->ct)
		return err;
	found->generation = load_step.generation;
	return ALREADY_THERE;
}

/*
 * Takes in a flow that the loader's own dump comes by. A flow may be deleted between the delete
 * program's run and the writes here, and would then stay for ever: so the loader makes two passes,
 * and removes what is older than both and was not come by in the second. A flow may also be there
 * by half, where the loader copied the live map while it was written.
 */
static __noinline int on_seed(const struct nf_conn *ct, __u32 portid)
{
	struct conntrack_value value = {};
	struct flow flow;
	struct copy copy;
	int orig, reply;

	if (portid != seed_portid)
		return done();
	count(COUNTER_SEED_HITS);
	if (BPF_CORE_READ(ct, status) & 1UL << IPS_DYING_BIT)
		return done();
	if (copy_flow(&copy, ct) || fill_keys(&flow, &copy)) {
		count(COUNTER_INSERT_READ_FAILED);
		return done();
	}
	if (!is_translated(&copy) || !is_enabled(&flow.orig))
		return forget_closed(&copy);
	value.ct = (__u64)ct;
	/* When it came is not known; but this is in the life of the namespace that it belongs to */
	value.created_ns = bpf_ktime_get_ns();
	value.flags = CONNTRACK_SEEDED;
	value.generation = load_step.generation;
	orig = seed_direction(&flow.orig, &flow.reply, &value, CONNTRACK_ORIG);
	reply = orig < 0 ? orig : seed_direction(&flow.reply, &flow.orig, &value, 0);
	if (orig >= 0 && reply < 0)
		bpf_map_delete_elem(&conntrack_live, &flow.orig);
	if (reply < 0 && reply != -EEXIST)
		count_failed_write(reply);
	if (reply >= 0 && (orig != ALREADY_THERE || reply != ALREADY_THERE))
		count(COUNTER_SEEDED);
	return done();
}

/*
 * At the very end of a network namespace, when its flows are deleted and its number is about to be
 * given back: whoever gets the number next has nothing to do with the entries that it has by now.
 */
static __noinline int on_netns_end(const struct ns_common *ns)
{
	__u32 netns = BPF_CORE_READ(ns, inum);
	__u64 now = bpf_ktime_get_ns();

	if (netns && bpf_map_update_elem(&netns_ended, &netns, &now, BPF_ANY))
		count(COUNTER_NETNS_END_FAILED);
	return done();
}

/* Linux 6.18 and newer: any kind of namespace, which tells its kind. */
struct ns_common___typed {
	unsigned int ns_type;
} __attribute__((preserve_access_index));

static __always_inline int on_ns_end(const struct ns_common *ns)
{
	const struct ns_common___typed *typed = (const void *)ns;

	if (bpf_core_field_exists(typed->ns_type) && BPF_CORE_READ(typed, ns_type) != CLONE_NEWNET)
		return 0;
	return on_netns_end(ns);
}

/*
 * Reading and copying of whole maps. A program that runs as a map's iterator does it without map
 * system calls: while one of those works, the kernel passes over the kprobe programs of its CPU,
 * and a flow inserted from an interrupt would be missed.
 */

static __always_inline void write_entry(struct seq_file *seq, const struct conntrack_key *from_key,
					const struct conntrack_value *from_value)
{
	struct conntrack_key key = *from_key;
	struct conntrack_value value = *from_value;

	bpf_seq_write(seq, &key, sizeof(key));
	bpf_seq_write(seq, &value, sizeof(value));
}

/* Every entry, key and value without a gap. */
SEC("iter/bpf_map_elem")
int iter_entries(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct conntrack_key *key = ctx->key;
	const struct conntrack_value *value = ctx->value;

	if (key && value)
		write_entry(ctx->meta->seq, key, value);
	return 0;
}

/* Those among them that were there before the take-in and that its last pass did not come by. */
SEC("iter/bpf_map_elem")
int iter_stale(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct conntrack_key *key = ctx->key;
	const struct conntrack_value *value = ctx->value;

	/* One that the take-in wrote is as old as what it has seen: a pass before the last one did
	 */
	if (key && value && value->generation != load_step.generation &&
	    (value->created_ns < load_step.stale_before_ns || value->flags & CONNTRACK_SEEDED))
		write_entry(ctx->meta->seq, key, value);
	return 0;
}

/* Copies a former map's entries to where they belong now; entries there are kept. */
SEC("iter/bpf_map_elem")
int iter_copy(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct conntrack_key *from_key = ctx->key;
	const struct conntrack_value *from_value = ctx->value;
	struct conntrack_value value;
	struct conntrack_key key;

	if (!from_key || !from_value || from_value->closed_ns < load_step.copy_since_ns)
		return 0;
	key = *from_key;
	value = *from_value;
	if (value.closed_ns)
		bpf_map_update_elem(&conntrack_closed, &key, &value, BPF_NOEXIST);
	else
		bpf_map_update_elem(&conntrack_live, &key, &value, BPF_NOEXIST);
	return 0;
}

/*
 * Entry points. One pair (insert, delete) a tier is loaded, with the seed program beside it while
 * existing flows are taken in.
 */

/* tier core/fentry */

SEC("fentry/__nf_conntrack_hash_insert")
int BPF_PROG(fentry_insert, struct nf_conn *ct)
{
	return on_insert(ct);
}

SEC("fentry/__nf_ct_delete_from_lists")
int BPF_PROG(fentry_delete, struct nf_conn *ct)
{
	return on_delete(ct);
}

SEC("fentry/nf_ct_remove_expectations")
int BPF_PROG(fentry_delete_expectations, struct nf_conn *ct)
{
	return on_remove_expectations(ct);
}

/* tier core/kprobe */

SEC("kprobe/__nf_conntrack_hash_insert")
int BPF_KPROBE(kprobe_insert, struct nf_conn *ct)
{
	return on_insert(ct);
}

SEC("kprobe/__nf_ct_delete_from_lists")
int BPF_KPROBE(kprobe_delete, struct nf_conn *ct)
{
	return on_delete(ct);
}

SEC("kprobe/nf_ct_remove_expectations")
int BPF_KPROBE(kprobe_delete_expectations, struct nf_conn *ct)
{
	return on_remove_expectations(ct);
}

/* tier core/fexit: the two callers of an insert function that is inlined, when they return */

SEC("fexit/__nf_conntrack_confirm")
int BPF_PROG(fexit_confirm, struct sk_buff *skb, int verdict)
{
	return verdict == NF_ACCEPT ? on_confirmed(skb) : 0;
}

SEC("fexit/nf_conntrack_hash_check_insert")
int BPF_PROG(fexit_check_insert, struct nf_conn *ct, int err)
{
	return err ? 0 : on_inserted(ct);
}

/* tier core/kretprobe: the same, where the arguments are gone by then */

SEC("kprobe/__nf_conntrack_confirm")
int BPF_KPROBE(kprobe_confirm, struct sk_buff *skb)
{
	return note_call(frame_at_entry(ctx), skb);
}

SEC("kretprobe/__nf_conntrack_confirm")
int BPF_KRETPROBE(kretprobe_confirm, int verdict)
{
	const struct sk_buff *skb = take_call(frame_at_return(ctx));

	if (verdict != NF_ACCEPT)
		return 0;
	if (!skb) {
		count(COUNTER_INSERT_READ_FAILED);
		return 0;
	}
	return on_confirmed(skb);
}

SEC("kprobe/nf_conntrack_hash_check_insert")
int BPF_KPROBE(kprobe_check_insert, struct nf_conn *ct)
{
	return note_call(frame_at_entry(ctx), ct);
}

SEC("kretprobe/nf_conntrack_hash_check_insert")
int BPF_KRETPROBE(kretprobe_check_insert, int err)
{
	const struct nf_conn *ct = take_call(frame_at_return(ctx));

	if (err)
		return 0;
	if (!ct) {
		count(COUNTER_INSERT_READ_FAILED);
		return 0;
	}
	return on_inserted(ct);
}

/* the end of a network namespace */

SEC("fentry/net_ns_net_exit")
int BPF_PROG(fentry_netns_end, struct net *net)
{
	return on_netns_end(&net->ns);
}

SEC("fentry/__ns_common_free")
int BPF_PROG(fentry_ns_end, struct ns_common *ns)
{
	return on_ns_end(ns);
}

SEC("kprobe/net_ns_net_exit")
int BPF_KPROBE(kprobe_netns_end, struct net *net)
{
	return on_netns_end(&net->ns);
}

SEC("kprobe/__ns_common_free")
int BPF_KPROBE(kprobe_ns_end, struct ns_common *ns)
{
	return on_ns_end(ns);
}

/* take-in of existing flows: ctnetlink_fill_info(skb, portid, seq, type, ct, …) */

SEC("fentry/ctnetlink_fill_info")
int BPF_PROG(fentry_seed, void *skb, __u32 portid, __u32 seq, __u32 type, struct nf_conn *ct)
{
	return on_seed(ct, portid);
}

SEC("kprobe/ctnetlink_fill_info")
int BPF_KPROBE(kprobe_seed, void *skb, __u32 portid, __u32 seq, __u32 type, struct nf_conn *ct)
{
	return on_seed(ct, portid);
}
