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

const char object_license[] SEC("license") = "GPL";
/* Read by user space before it hands the file to libbpf, which passes over this section. */
const char about[] SEC("btfleet") = "layout=1 arch=" TARGET_ARCH;
_Static_assert(CONNTRACK_LAYOUT == 1, "say the new layout in the btfleet section as well");

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

#define TUPLE_OFFSET(field)                                                                        \
	__builtin_preserve_field_info(((struct nf_conntrack_tuple *)0)->field,                     \
				      BPF_FIELD_BYTE_OFFSET)

static __always_inline void copy_addr(struct conntrack_addr *to, const void *from, __u8 family)
{
	const __u32 *word = from;

	to->word[0] = word[0];
	/* The kernel leaves these zero for IPv4; a key must not depend on it. */
	to->word[1] = family == AF_INET6 ? word[1] : 0;
	to->word[2] = family == AF_INET6 ? word[2] : 0;
	to->word[3] = family == AF_INET6 ? word[3] : 0;
}

/* One read for the whole tuple; where its members lie inside is relocated like any other offset. */
static __always_inline int read_tuple(struct conntrack_key *key,
				      const struct nf_conntrack_tuple *tuple)
{
	__u64 storage[5] = {};
	const char *raw = (const char *)storage;

	if (bpf_probe_read_kernel(storage, sizeof(storage), tuple))
		return -1;
	key->family = *(const __u16 *)(raw + TUPLE_OFFSET(src.l3num));
	key->protocol = *(const __u8 *)(raw + TUPLE_OFFSET(dst.protonum));
	copy_addr(&key->saddr, raw + TUPLE_OFFSET(src.u3), key->family);
	copy_addr(&key->daddr, raw + TUPLE_OFFSET(dst.u3), key->family);
	key->sport = bpf_ntohs(*(const __be16 *)(raw + TUPLE_OFFSET(src.u.all)));
	key->dport = bpf_ntohs(*(const __be16 *)(raw + TUPLE_OFFSET(dst.u.all)));
	return 0;
}

static __noinline int read_flow(const struct nf_conn *ct, struct flow *flow)
{
	__u32 netns;
	struct net *net;

	if (read_tuple(&flow->orig, &ct->tuplehash[DIR_ORIGINAL].tuple) ||
	    read_tuple(&flow->reply, &ct->tuplehash[DIR_REPLY].tuple))
		return -1;
	if (bpf_core_read(&net, sizeof(net), &ct->ct_net.net) ||
	    bpf_core_read(&netns, sizeof(netns), &net->ns.inum))
		return -1;
	flow->orig.netns = netns;
	flow->reply.netns = netns;
	flow->orig.zone = 0;
	flow->reply.zone = 0;
	if (bpf_core_field_exists(ct->zone)) {
		__u16 zone = BPF_CORE_READ(ct, zone.id);

		if (zone) {
			__u8 directions = BPF_CORE_READ(ct, zone.dir);

			if (directions & 1 << DIR_ORIGINAL)
				flow->orig.zone = zone;
			if (directions & 1 << DIR_REPLY)
				flow->reply.zone = zone;
		}
	}
	return 0;
}

static __always_inline bool same_addr(const struct conntrack_addr *a,
				      const struct conntrack_addr *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/*
 * Compares tuples and no status bits: the kernel moves the point where it sets them (IPS_CONFIRMED
 * comes after the insertion since 6.16 and its stable back-ports).
 */
static __always_inline bool is_translated(const struct flow *flow)
{
	const struct conntrack_key *orig = &flow->orig, *reply = &flow->reply;

	if (!same_addr(&orig->saddr, &reply->daddr) || !same_addr(&orig->daddr, &reply->saddr))
		return true;
	/* An ICMP reply has another type by nature, and the id on the same side. */
	if (orig->protocol == IPPROTO_ICMP || orig->protocol == IPPROTO_ICMPV6)
		return orig->sport != reply->sport;
	return orig->sport != reply->dport || orig->dport != reply->sport;
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

static __noinline int on_insert(const struct nf_conn *ct)
{
	struct conntrack_value value = {};
	struct flow flow;
	int err;

	count(COUNTER_INSERT_HITS);
	if (read_flow(ct, &flow)) {
		count(COUNTER_INSERT_READ_FAILED);
		return 0;
	}
	if (!is_translated(&flow)) {
		count(COUNTER_INSERT_UNTRANSLATED);
		return 0;
	}
	if (!is_enabled(&flow.orig)) {
		count(COUNTER_INSERT_DISABLED);
		return 0;
	}
	value.ct = (__u64)ct;
	value.created_ns = bpf_ktime_get_ns();
	err = write_flow(&flow, &value);
	if (err)
		count_failed_write(err);
	else
		count(COUNTER_INSERTED);
	return 0;
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
	bpf_map_delete_elem(&conntrack_live, key);
	return REMOVED;
}

/*
 * nf_ct_delete() may be entered more than once for a flow. The first call got everything done
 * before it set IPS_DYING, and nf_ct_delete() takes the flow out of the kernel's hash only after
 * that, so a successor with the same tuple can be in the map for the later calls alone: these
 * are told apart by the bit, and by the cookie.
 */
static __always_inline bool is_dying(const struct nf_conn *ct)
{
	return BPF_CORE_READ(ct, status) & 1UL << IPS_DYING_BIT;
}

static __noinline int remove_flow(const struct nf_conn *ct)
{
	enum removal orig, reply;
	struct flow flow;
	__u64 now;

	if (read_flow(ct, &flow)) {
		count(COUNTER_DELETE_READ_FAILED);
		return 0;
	}
	if (!is_translated(&flow))
		return 0;
	now = bpf_ktime_get_ns();
	orig = move_to_closed(&flow.orig, (__u64)ct, now);
	reply = move_to_closed(&flow.reply, (__u64)ct, now);
	if (orig == REMOVED || reply == REMOVED)
		count(COUNTER_DELETED);
	if (orig == SUCCESSOR || reply == SUCCESSOR)
		count(COUNTER_DELETE_SUCCESSOR);
	return 0;
}

static __noinline int on_delete(const struct nf_conn *ct)
{
	count(COUNTER_DELETE_HITS);
	return is_dying(ct) ? 0 : remove_flow(ct);
}

/*
 * nf_ct_delete() without its beginning, which gcc has put into its callers: entered only by the one
 * call for a flow that has set IPS_DYING.
 */
static __noinline int on_delete_part(const struct nf_conn *ct)
{
	count(COUNTER_DELETE_HITS);
	return remove_flow(ct);
}

/*
 * Where inserting is seen only when it is done, the flow may be deleted before it is written. Its
 * delete program has come too early then, but IPS_DYING is set right after.
 */
static __noinline int on_inserted(const struct nf_conn *ct)
{
	/* The loser of a clash is in the table by half, and conntrack does not list it. */
	if (BPF_CORE_READ(ct, status) & (1UL << IPS_DYING_BIT | 1UL << IPS_NAT_CLASH_BIT))
		return 0;
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
	int orig, reply;

	if (portid != seed_portid)
		return 0;
	count(COUNTER_SEED_HITS);
	if (BPF_CORE_READ(ct, status) & 1UL << IPS_DYING_BIT)
		return 0;
	if (read_flow(ct, &flow)) {
		count(COUNTER_INSERT_READ_FAILED);
		return 0;
	}
	if (!is_translated(&flow) || !is_enabled(&flow.orig))
		return 0;
	value.ct = (__u64)ct;
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
	return 0;
}

/*
 * Reading and copying of whole maps. A program that runs as a map's iterator does it without map
 * system calls: while one of those works, the kernel passes over the kprobe programs of its CPU,
 * and a flow inserted from an interrupt would be missed.
 */

/* The part that a key and a value have in common. */
struct ends {
	struct conntrack_addr saddr;
	struct conntrack_addr daddr;
	__u16 sport;
	__u16 dport;
};

_Static_assert(sizeof(struct ends) == 36, "no padding");
_Static_assert(sizeof(struct conntrack_key) - 8 == sizeof(struct ends), "a key ends with its ends");
_Static_assert(__builtin_offsetof(struct conntrack_value, zone) -
			       __builtin_offsetof(struct conntrack_value, saddr) ==
		       sizeof(struct ends),
	       "a value's ends lie as a key's");

/* Also in plugins/module_utils/_kernel/conntrack/table.py; others go by their number. */
static const struct {
	__u8 number;
	char name[8];
} protocols[] = {
	{ IPPROTO_ICMP, "icmp" }, { IPPROTO_TCP, "tcp" }, { IPPROTO_UDP, "udp" },
	{ 33, "dccp" },		  { 47, "gre" },	  { IPPROTO_ICMPV6, "icmpv6" },
	{ 132, "sctp" },	  { 136, "udplite" },
};

static const char state_live[] = "live", state_closed[] = "closed", colon[] = ":";

/*
 * The groups of an IPv6 address that "::" stands for, a bit each: the first longest run of zeros.
 * Computed without branches, after which the verifier would follow each pattern by itself.
 */
static __always_inline __u32 shortened(const __u16 group[8])
{
	__u32 zeros = 0, run, longest = 0, length = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++) {
		__u32 below = group[i] - 1U;

		barrier_var(below); /* or clang makes it a branch again */
		zeros |= below >> 31 << i;
	}
	run = zeros;
#pragma clang loop unroll(disable)
	for (int i = 1; i < 8; i++) {
		run &= zeros >> i; /* where runs of i + 1 begin */
		if (run) {
			longest = run;
			length = i + 1;
		}
	}
	return (longest & -longest) * ((1U << length) - 1);
}

/* As inet_ntop() writes it. */
static __noinline int print_ipv6(struct seq_file *seq, const struct conntrack_addr *addr)
{
	__u16 group[8];
	__u32 hidden;

	if (!addr->word[0] && !addr->word[1] && addr->word[2] == bpf_htonl(0xffff)) {
		BPF_SEQ_PRINTF(seq, "::ffff:%pI4", &addr->word[3]);
		return 0;
	}
	if (!addr->word[0] && !addr->word[1] && !addr->word[2] && bpf_ntohl(addr->word[3]) >> 16) {
		BPF_SEQ_PRINTF(seq, "::%pI4", &addr->word[3]);
		return 0;
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 word = bpf_ntohl(addr->word[i]);

		group[2 * i] = word >> 16;
		group[2 * i + 1] = word;
	}
	hidden = shortened(group);
#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++) {
		if (!(hidden >> i & 1))
			BPF_SEQ_PRINTF(seq, "%s%x", i ? colon : colon + 1, group[i]);
		else if (!(hidden << 1 >> i & 1))
			BPF_SEQ_PRINTF(seq, ":");
	}
	if (hidden >> 7)
		BPF_SEQ_PRINTF(seq, ":");
	return 0;
}

static __always_inline void print_addr(struct seq_file *seq, const struct conntrack_addr *addr,
				       __u8 family)
{
	if (family == AF_INET)
		BPF_SEQ_PRINTF(seq, "%pI4", addr);
	else
		print_ipv6(seq, addr);
}

static __noinline int print_ends(struct seq_file *seq, const struct ends *ends, __u8 family,
				 bool is_icmp)
{
	BPF_SEQ_PRINTF(seq, "{\"src\": \"");
	print_addr(seq, &ends->saddr, family);
	if (is_icmp)
		BPF_SEQ_PRINTF(seq, "\", \"dst\": \"");
	else
		BPF_SEQ_PRINTF(seq, "\", \"sport\": %u, \"dst\": \"", ends->sport);
	print_addr(seq, &ends->daddr, family);
	if (is_icmp)
		BPF_SEQ_PRINTF(seq, "\", \"id\": %u, \"type\": %u, \"code\": %u}", ends->sport,
			       ends->dport >> 8, ends->dport & 0xff);
	else
		BPF_SEQ_PRINTF(seq, "\", \"dport\": %u}", ends->dport);
	return 0;
}

/* Zone and protocol: what comes before the ends. */
static __noinline int print_begin(struct seq_file *seq, const struct conntrack_key *key,
				  __u16 other_zone, const char *protocol)
{
	if (key->zone == other_zone)
		BPF_SEQ_PRINTF(seq, "{\"netns\": %u, \"zone\": %u, ", key->netns, key->zone);
	else if (key->zone)
		BPF_SEQ_PRINTF(seq, "{\"netns\": %u, \"zone\": %u, \"zone_dir\": \"orig\", ",
			       key->netns, key->zone);
	else
		BPF_SEQ_PRINTF(seq, "{\"netns\": %u, \"zone\": %u, \"zone_dir\": \"reply\", ",
			       key->netns, other_zone);
	if (key->family == AF_INET)
		BPF_SEQ_PRINTF(seq, "\"family\": \"ipv4\", ");
	else
		BPF_SEQ_PRINTF(seq, "\"family\": \"ipv6\", ");
	if (protocol)
		BPF_SEQ_PRINTF(seq, "\"protocol\": \"%s\", \"orig\": ", protocol);
	else
		BPF_SEQ_PRINTF(seq, "\"protocol\": \"%u\", \"orig\": ", key->protocol);
	return 0;
}

/* Each flow as a line of JSON, from its original direction: the text of table.json_lines(). */
SEC("iter/bpf_map_elem")
int iter_dump(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct conntrack_key *key = ctx->key;
	const struct conntrack_value *value = ctx->value;
	const char *protocol = NULL, *state;
	const struct ends *orig, *reply;
	bool is_icmp;

	if (!key || !value || !(value->flags & CONNTRACK_ORIG))
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < (int)(sizeof(protocols) / sizeof(protocols[0])); i++) {
		if (key->protocol == protocols[i].number)
			protocol = protocols[i].name;
	}
	orig = (const struct ends *)&key->saddr;
	reply = (const struct ends *)&value->saddr;
	state = value->closed_ns ? state_closed : state_live;
	is_icmp = key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6;
	/* Nearly every flow there is, by one call in place of 13 */
	if (key->family == AF_INET && key->zone == value->zone && protocol && !is_icmp) {
		BPF_SEQ_PRINTF(seq,
			       "{\"netns\": %u, \"zone\": %u, \"family\": \"ipv4\", "
			       "\"protocol\": \"%s\", "
			       "\"orig\": {\"src\": \"%pI4\", \"sport\": %u, "
			       "\"dst\": \"%pI4\", \"dport\": %u}, "
			       "\"reply\": {\"src\": \"%pI4\", \"sport\": %u, "
			       "\"dst\": \"%pI4\", \"dport\": %u}, \"state\": \"%s\"}\n",
			       key->netns, key->zone, protocol, &orig->saddr, orig->sport,
			       &orig->daddr, orig->dport, &reply->saddr, reply->sport,
			       &reply->daddr, reply->dport, state);
		return 0;
	}
	print_begin(seq, key, value->zone, protocol);
	print_ends(seq, orig, key->family, is_icmp);
	BPF_SEQ_PRINTF(seq, ", \"reply\": ");
	print_ends(seq, reply, key->family, is_icmp);
	BPF_SEQ_PRINTF(seq, ", \"state\": \"%s\"}\n", state);
	return 0;
}

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

	if (key && value && value->generation != load_step.generation &&
	    value->created_ns < load_step.stale_before_ns)
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

SEC("fentry/nf_ct_delete")
int BPF_PROG(fentry_delete, struct nf_conn *ct)
{
	return on_delete(ct);
}

/* tier core/kprobe */

SEC("kprobe/__nf_conntrack_hash_insert")
int BPF_KPROBE(kprobe_insert, struct nf_conn *ct)
{
	return on_insert(ct);
}

SEC("kprobe/nf_ct_delete")
int BPF_KPROBE(kprobe_delete, struct nf_conn *ct)
{
	return on_delete(ct);
}

SEC("kprobe/nf_ct_delete")
int BPF_KPROBE(kprobe_delete_part, struct nf_conn *ct)
{
	return on_delete_part(ct);
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
