// SPDX-License-Identifier: GPL-2.0-only
/*
 * speed - how long the kernel takes to hand a device out, and to map memory.
 *
 * Usage: speed ROUNDS
 *
 * The device is the one that VFIO_LAB_GROUP and VFIO_LAB_CDEV name. For each
 * flow that the kernel has, a round is one sample of
 *
 *	bind	from nothing open to an operational device
 *	map	MAP_BYTES of memory mapped for it, and unmapped
 *	close	back to nothing open
 *
 * A line of the output is a flow, what was done, and nanoseconds, one number
 * a round. The flows take turns, so that a busy host disturbs them alike.
 * What cannot be done is told on standard error with the call that failed,
 * and has no line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <linux/vfio.h>
#ifdef VFIO_DEVICE_BIND_IOMMUFD
#include <linux/iommufd.h>
#endif

#define MAP_BYTES (2ul << 20)
#define PAGE 4096ul
#define IOVA 0x10000000ul
#define WARM_UP 3 /* rounds: code is translated, caches fill */

enum part { BIND, MAP, CLOSE, NR_PARTS };

static const char *const parts[] = { [BIND] = "bind", [MAP] = "map", [CLOSE] = "close" };

/* The files of one operational device, and the address space of an iommufd. */
struct opened {
	int space;
	int group;
	int device;
	uint32_t ioas;
};

struct flow {
	const char *name;
	const char *variable;
	const char *path;
	bool (*open)(struct opened *o, const char *path);
	bool (*map)(struct opened *o, void *memory);
	bool (*unmap)(struct opened *o);
	uint64_t *ns[NR_PARTS];
};

static bool worked(int result, const char *call)
{
	if (result < 0)
		fprintf(stderr, "%s: %s\n", call, strerror(errno));
	return result >= 0;
}

#define TRY(call) worked(call, #call)

static void close_all(struct opened *o)
{
	int *const fds[] = { &o->device, &o->group, &o->space };

	for (unsigned int i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static bool group_open(struct opened *o, const char *path)
{
	return TRY(o->space = open("/dev/vfio/vfio", O_RDWR)) &&
	       TRY(o->group = open(path, O_RDWR)) &&
	       TRY(ioctl(o->group, VFIO_GROUP_SET_CONTAINER, &o->space)) &&
	       TRY(ioctl(o->space, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) &&
	       TRY(o->device = ioctl(o->group, VFIO_GROUP_GET_DEVICE_FD,
				     getenv("VFIO_LAB_BDF")));
}

static bool group_map(struct opened *o, void *memory)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory,
		.iova = IOVA,
		.size = MAP_BYTES,
	};

	return TRY(ioctl(o->space, VFIO_IOMMU_MAP_DMA, &map));
}

static bool group_unmap(struct opened *o)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = IOVA,
		.size = MAP_BYTES,
	};

	return TRY(ioctl(o->space, VFIO_IOMMU_UNMAP_DMA, &unmap));
}

#ifdef VFIO_DEVICE_BIND_IOMMUFD
static bool cdev_open(struct opened *o, const char *path)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };

	if (!TRY(o->device = open(path, O_RDWR)) ||
	    !TRY(o->space = open("/dev/iommu", O_RDWR)))
		return false;
	bind.iommufd = o->space;
	if (!TRY(ioctl(o->device, VFIO_DEVICE_BIND_IOMMUFD, &bind)) ||
	    !TRY(ioctl(o->space, IOMMU_IOAS_ALLOC, &alloc)))
		return false;
	o->ioas = alloc.out_ioas_id;
	attach.pt_id = o->ioas;
	return TRY(ioctl(o->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
}

static bool cdev_map(struct opened *o, void *memory)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = o->ioas,
		.user_va = (uintptr_t)memory,
		.length = MAP_BYTES,
		.iova = IOVA,
	};

	return TRY(ioctl(o->space, IOMMU_IOAS_MAP, &map));
}

static bool cdev_unmap(struct opened *o)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = o->ioas,
		.iova = IOVA,
		.length = MAP_BYTES,
	};

	return TRY(ioctl(o->space, IOMMU_IOAS_UNMAP, &unmap));
}
#endif

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* One sample of each part; those of the rounds before 0 are not kept. */
static bool take(struct flow *f, void *memory, int round)
{
	struct opened o = { .space = -1, .group = -1, .device = -1 };
	uint64_t t[NR_PARTS + 1];
	bool done;

	t[BIND] = now();
	done = f->open(&o, f->path);
	t[MAP] = now();
	done = done && f->map(&o, memory) && f->unmap(&o);
	t[CLOSE] = now();
	close_all(&o);
	t[NR_PARTS] = now();
	for (int part = 0; part < NR_PARTS && round >= 0; part++)
		f->ns[part][round] = t[part + 1] - t[part];
	return done;
}

static void print(const struct flow *f, int rounds)
{
	for (int part = 0; part < NR_PARTS; part++) {
		printf("%s %s", f->name, parts[part]);
		for (int round = 0; round < rounds; round++)
			printf(" %llu", (unsigned long long)f->ns[part][round]);
		putchar('\n');
	}
}

/*
 * Pages that are neighbours in physical memory are mapped as one piece, and
 * how many of them are is chance, and another one in each guest. Here none
 * are: the kernel hands out neighbours to those who ask in a row.
 */
static char *scattered_memory(void)
{
	char *memory = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, MAP_BYTES, MADV_NOHUGEPAGE); /* not every kernel has huge pages */
	for (unsigned long first = 0; first < 2 * PAGE; first += PAGE)
		for (unsigned long at = first; at < MAP_BYTES; at += 2 * PAGE)
			memory[at] = 1;
	return memory;
}

int main(int argc, char **argv)
{
	struct flow flows[] = {
		{ .name = "group", .variable = "VFIO_LAB_GROUP", .open = group_open,
		  .map = group_map, .unmap = group_unmap },
#ifdef VFIO_DEVICE_BIND_IOMMUFD
		{ .name = "cdev", .variable = "VFIO_LAB_CDEV", .open = cdev_open,
		  .map = cdev_map, .unmap = cdev_unmap },
#endif
	};
	const int nr_flows = sizeof(flows) / sizeof(*flows);
	int rounds = argc == 2 ? atoi(argv[1]) : 0;
	char *memory;

	if (rounds < 1) {
		fprintf(stderr, "usage: %s ROUNDS\n", argv[0]);
		return 2;
	}
	memory = scattered_memory();
	if (!memory) {
		perror("mmap");
		return 1;
	}
	for (int i = 0; i < nr_flows; i++) {
		flows[i].path = getenv(flows[i].variable);
		for (int part = 0; part < NR_PARTS; part++) {
			flows[i].ns[part] = calloc(rounds, sizeof(uint64_t));
			if (!flows[i].ns[part])
				return 1;
		}
	}
	for (int round = -WARM_UP; round < rounds; round++) {
		for (int i = 0; i < nr_flows; i++) {
			if (flows[i].path && !take(&flows[i], memory, round)) {
				fprintf(stderr, "%s: not measured\n", flows[i].name);
				flows[i].path = NULL;
			}
		}
	}
	for (int i = 0; i < nr_flows; i++)
		if (flows[i].path)
			print(&flows[i], rounds);
	return 0;
}
