// SPDX-License-Identifier: GPL-2.0-only
/*
 * iommufd aligns the start of a free range of IOVAs, and near their end that wraps: a mapping is
 * put where none is allowed.
 *
 * iopt_alloc_iova(), __alloc_iova_check_used(): ALIGN(0xffffffffffff1000, 64 KiB) is 0, and from
 * there to the end of the range is room enough.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>

#define START 0xffffffffffff1000ULL
#define LENGTH 0xe000ULL /* aligned to the next power of two, 64 KiB */

int main(void)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	struct iommu_iova_range range = { .start = START, .last = START + LENGTH - 1 };
	struct iommu_ioas_allow_iovas allow = { .size = sizeof(allow), .num_iovas = 1 };
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.length = LENGTH,
	};
	int iommufd = open("/dev/iommu", O_RDWR);
	char *memory = mmap(NULL, 0x20000, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (iommufd < 0) {
		printf("1..0 # SKIP the kernel has no iommufd\n");
		return 0;
	}
	if (memory == MAP_FAILED)
		err(2, "mmap");
	if (ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc))
		err(2, "IOMMU_IOAS_ALLOC");
	allow.ioas_id = map.ioas_id = alloc.out_ioas_id;
	allow.allowed_iovas = (uintptr_t)&range;
	if (ioctl(iommufd, IOMMU_IOAS_ALLOW_IOVAS, &allow))
		err(2, "IOMMU_IOAS_ALLOW_IOVAS");
	map.user_va = ((uintptr_t)memory + 0xffff) & ~0xffffULL;
	if (ioctl(iommufd, IOMMU_IOAS_MAP, &map)) {
		printf("refused: %s\n", errno == ENOSPC ? "no such IOVA is free" : "");
		return errno == ENOSPC ? 0 : 2;
	}
	printf("allowed %#llx to %#llx, mapped at %#llx\n", (unsigned long long)range.start,
	       (unsigned long long)range.last, (unsigned long long)map.iova);
	return map.iova < range.start;
}
#else
int main(void)
{
	printf("1..0 # SKIP the kernel's headers have no iommufd\n");
	return 0;
}
#endif
