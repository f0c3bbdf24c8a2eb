// The page that shows a recording: one file of HTML that needs nothing else.

#ifndef TOOLS_HAKMEM_REPORT_PAGE_H_
#define TOOLS_HAKMEM_REPORT_PAGE_H_

#include <string>

#include "tools/hakmem/recording.h"

namespace hakmem::tools {

// Of more moments than this the page has a selection: of each stretch of time
// the moment with the most resident memory, and the first and last of all.
inline constexpr size_t kMostMoments = 600;

// Sites beyond the largest so many, by what they had at most, are added up to
// one.
inline constexpr size_t kMostSites = 2000;

// The recording's data as a JSON object, which the page's script explains.
std::string ReportData(const Recording& recording);

// The page.
std::string ReportPage(const Recording& recording);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_REPORT_PAGE_H_
