// The front end that a model was trained with, whichever it is.
#pragma once

#include <memory>
#include <variant>

#include "base/status.h"
#include "features/fbank.h"
#include "features/frontend.h"
#include "features/log_mel.h"
#include "features/mfcc.h"

namespace edge_speech {

using FrontendConfig = std::variant<MfccConfig, FbankConfig, LogMelConfig>;

// InvalidArgument when a field of the configuration is out of its range.
Result<std::unique_ptr<Frontend>> create_frontend(const FrontendConfig& config);

int sample_rate(const FrontendConfig& config);
// A frame's time is the shift around its centre: the first one's begins here, before 0 where it is centred on
// the first sample.
double first_frame_ms(const FrontendConfig& config);

double frame_shift_ms(const FrontendConfig& config);

}  // namespace edge_speech
