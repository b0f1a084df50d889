package command

// What the tests of whole commands need to know.
type (
	SendSummary  = sendSummary
	SettingsDone = settingsDone
	SettingsGot  = settingsGot
)

const APITokenVariable = apiTokenVariable

var SplitExport = splitExport
